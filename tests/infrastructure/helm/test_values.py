"""deploy/helm/values.yaml and pg-receivewal.yaml against chart, Kubernetes API, Airflow and our own code."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.cli.cli_parser import get_parser
from airflow.configuration import retrieve_configuration_description
from airflow.providers.hashicorp.secrets.vault import VaultBackend

from dev.chart_schema import excerpt
from pv_backup.hooks.mail_server import MailServerHook
from pv_backup.hooks.webhook import WebhookHook
from pv_backup.operators.configuration import ConnectionIds
from pv_backup.services.settings import ENV_PREFIX, Settings
from tests.infrastructure.compose import composition
from tests.infrastructure.compose.dockerfile import stages
from tests.infrastructure.helm.objects import problems

pytestmark = pytest.mark.case("TC-INF-04")

ROOT = Path(__file__).parents[3]
HELM = ROOT / "deploy" / "helm"
VALUES: dict[str, Any] = yaml.safe_load((HELM / "values.yaml").read_text())
RECEIVER: dict[str, Any] = yaml.safe_load((HELM / "pg-receivewal.yaml").read_text())
#: What the image trusts, and who is told so: httpx and smtplib, requests and botocore, libpq and asyncpg.
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
TRUST = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PGSSLROOTCERT"), AUTHORITIES)
TRUST["PGSSLMODE"] = "verify-full"
CHART: dict[str, Any] = json.loads(excerpt.EXCERPT.read_text())


def _of_kubernetes(_: Any, type_name: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    yield from map(jsonschema.ValidationError, problems(value, type_name))


#: Knows what the excerpt says in place of the API's own schemas, which its Python client publishes.
ChartValidator = jsonschema.validators.extend(jsonschema.Draft7Validator, {excerpt.KUBERNETES: _of_kubernetes})


def leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Each key of the chart that is set, with its value; what lies below a listed key belongs to that value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        place = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict) and place not in CHART["values"]:
            found |= leaves(value, place)
        else:
            found[place] = value
    return found


def environments() -> dict[str, list[dict[str, Any]]]:
    """The variables of each component, those that all have first."""
    common = VALUES["env"]
    return {
        "workers": [*common, *VALUES["workers"]["kubernetes"]["env"]],
        "dagProcessor": [*common, *VALUES["dagProcessor"]["env"]],
        "triggerer": [*common, *VALUES["triggerer"]["env"]],
        "apiServer": [*common, *VALUES["apiServer"]["env"]],
        "scheduler": common,
    }


every_component = pytest.mark.parametrize("component", sorted(environments()))


@pytest.mark.parametrize("place", sorted(leaves(VALUES)))
def test_the_chart_takes_this_value(place: str) -> None:
    assert place in CHART["values"], "python -m dev.chart_schema looks it up"
    validator = ChartValidator(CHART["values"][place])
    assert [error.message for error in validator.iter_errors(leaves(VALUES)[place])] == []


def test_no_key_is_listed_that_nobody_sets() -> None:
    assert set(CHART["values"]) - {"airflowLocalSettings"} == set(leaves(VALUES))


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("uid", "50000"),
        ("images.airflow.pullPolicy", "Sometimes"),
        ("env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]),
        ("triggerer.env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "kye": "b"}}}]),
        ("workers.kubernetes.resources", {"limit": {"memory": "1Gi"}}),
        ("volumes", [{"name": "tmp", "emptydir": {}}]),
        ("config", {"core": {"parallelism": [8]}}),
    ],
)
def test_a_mistake_would_be_found(place: str, wrong: object) -> None:
    assert list(ChartValidator(CHART["values"][place]).iter_errors(wrong))


def test_the_commands_at_the_top_name_this_chart_and_these_files() -> None:
    head = (HELM / "values.yaml").read_text().split("\n\n", 1)[0]
    assert set(re.findall(r"1\.\d+\.\d+", head)) == {CHART["chart"]["version"]}
    for file in re.findall(r"deploy/helm/[\w.-]+", (HELM / "values.yaml").read_text()):
        assert (ROOT / file).exists()


def test_airflow_knows_every_option() -> None:
    description = retrieve_configuration_description(include_providers=True)
    for section, options in VALUES["config"].items():
        assert set(options) <= set(description[section]["options"]), section


@every_component
def test_every_variable_is_known_to_airflow_or_to_us(component: str) -> None:
    description = retrieve_configuration_description(include_providers=True)
    for variable in environments()[component]:
        name = variable["name"]
        if name.startswith(ENV_PREFIX):
            assert name.removeprefix(ENV_PREFIX).lower() in Settings.model_fields
        elif name.startswith("AIRFLOW_CONN_"):
            ours = {*vars(ConnectionIds()).values(), MailServerHook.default_conn_name, WebhookHook.default_conn_name}
            assert name.removeprefix("AIRFLOW_CONN_").lower() in ours
        elif "_KWARG__" in name:
            assert name.rsplit("__", 1)[1].lower() in inspect.signature(VaultBackend.__init__).parameters
        elif name.startswith("AIRFLOW__"):
            _, section, option = name.split("__")
            assert option.lower() in description[section.lower()]["options"]
        elif name in TRUST:
            assert variable["value"] == TRUST[name]
        else:
            assert component == "apiServer"
            assert name in {"UI_PASSWORD", "FORWARDED_ALLOW_IPS"}


def test_every_component_trusts_what_the_image_trusts() -> None:
    for component, variables in environments().items():
        assert {variable["name"] for variable in variables} >= set(TRUST), component


def test_workers_have_every_setting_without_a_default() -> None:
    given = {variable["name"] for variable in environments()["workers"]}
    for name, field in Settings.model_fields.items():
        if field.is_required():
            assert f"{ENV_PREFIX}{name.upper()}" in given


def test_vault_is_asked_as_by_compose() -> None:
    def backend(values: dict[str, str]) -> dict[str, Any]:
        return {**json.loads(values["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"]), "url": "another"}

    given = {variable["name"]: variable.get("value", "") for variable in environments()["workers"]}
    compose = composition.services()["worker"]["environment"]
    assert backend(given) == backend(compose)
    asked = "SECRETS_BACKEND"
    assert {name for name in given if asked in name} == {name for name in compose if asked in name}


def test_the_components_that_use_no_key_have_none() -> None:
    for component, variables in environments().items():
        named = {variable["valueFrom"]["secretKeyRef"]["name"] for variable in variables if "valueFrom" in variable}
        assert ("pv-backup-vault" in named) == (component == "workers"), component


def test_who_runs_no_task_has_only_the_connections_that_it_uses() -> None:
    def held(component: str) -> set[tuple[str, str]]:
        secret = [variable for variable in environments()[component] if "valueFrom" in variable]
        return {(variable["name"], variable["valueFrom"]["secretKeyRef"]["key"]) for variable in secret}

    prefix = "AIRFLOW_CONN_PV_BACKUP_"
    assert held("dagProcessor") == {(f"{prefix}SMTP", "smtp"), (f"{prefix}WEBHOOK", "webhook")}
    assert held("triggerer") == {(f"{prefix}S3", "s3-watchdog")}
    assert (f"{prefix}S3", "s3") in held("workers")
    assert held("scheduler") == set()


def test_every_secret_is_described_with_its_keys() -> None:
    head = (HELM / "values.yaml").read_text().split("\nairflowVersion", 1)[0]
    names = re.findall(r"^#   (pv-backup-[a-z]+)  ", head, re.MULTILINE)
    described = {name: head.split(f"#   {name} ", 1)[1].split("\n#   pv-", 1)[0] for name in names}
    chart = {
        "connection": VALUES["data"]["metadataSecretName"],
        "fernet-key": VALUES["fernetKeySecretName"],
        "api-secret-key": VALUES["apiSecretKeySecretName"],
        "jwt-secret": VALUES["jwtSecretName"],
    }
    asked = {(name, key) for key, name in chart.items()}
    for variables in environments().values():
        for reference in [variable["valueFrom"]["secretKeyRef"] for variable in variables if "valueFrom" in variable]:
            asked.add((reference["name"], reference["key"]))
    receiver = RECEIVER["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"]
    asked |= {(receiver, key) for key in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD")}
    assert {name for name, _ in asked} == set(described)
    for name, key in asked:
        assert re.search(rf"(?<![\w-]){key}(?![\w-])", described[name]), f"{name} wants {key}"


def test_probes_and_programs_are_airflows_and_not_the_official_images() -> None:
    for component, job in (
        ("scheduler", "SchedulerJob"),
        ("dagProcessor", "DagProcessorJob"),
        ("triggerer", "TriggererJob"),
    ):
        probes = [VALUES[component][name] for name in ("livenessProbe", "startupProbe") if name in VALUES[component]]
        for probe in probes:
            assert probe["command"][0] == "airflow"
            parsed = get_parser().parse_args(probe["command"][1:])
            assert (parsed.job_type, parsed.local) == (job, True)
            assert probe["timeoutSeconds"] <= probe["periodSeconds"]
        groomer = VALUES[component]["logGroomerSidecar"]
        assert groomer.get("enabled") is False or "/clean-logs" not in str(groomer["args"])
    started = re.search(r"exec airflow (.*)", VALUES["apiServer"]["args"][-1])
    assert started
    get_parser().parse_args(started[1].split())


@pytest.mark.parametrize("password", ["a-Token_1", 'with "quotes" and \\'])
def test_the_password_is_the_secrets_and_no_log_has_it(
    password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command's own lines before Airflow, then Airflow's own start on what they wrote."""
    core, file = VALUES["config"]["core"], tmp_path / "passwords.json"
    shell, options, script = VALUES["apiServer"]["args"]
    before, _, _ = script.replace(core["simple_auth_manager_passwords_file"], str(file)).partition("exec airflow ")
    environment = {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "UI_PASSWORD": password}
    subprocess.run([shell, options, before], env=environment, check=True)
    assert file.stat().st_mode & 0o777 == 0o600

    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", core["simple_auth_manager_users"])
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(file))
    SimpleAuthManager().init()
    assert SimpleAuthManager.get_passwords() == {"admin": password}
    assert "Password for user" not in "".join(capfd.readouterr())

    file.unlink()
    SimpleAuthManager().init()
    assert "Password for user" in "".join(capfd.readouterr()), "what is guarded against"


def test_bucket_and_key_have_the_form_that_terraform_makes() -> None:
    given = {variable["name"]: variable["value"] for variable in VALUES["env"]}
    rule = re.search(r'regex\("([^"]+)", var\.bucket_name\)', (ROOT / "terraform" / "variables.tf").read_text())
    assert rule
    assert re.fullmatch(rule[1], given["PV_BACKUP_BUCKET"])
    assert re.fullmatch(r"arn:aws:kms:[\w-]+:\d{12}:key/[0-9a-f-]{36}", given["PV_BACKUP_KMS_KEY_ID"])


def test_the_image_is_ours_everywhere() -> None:
    image = VALUES["images"]["airflow"]
    assert RECEIVER["spec"]["template"]["spec"]["containers"][0]["image"] == f"{image['repository']}:{image['tag']}"
    locked = re.search(r"^apache-airflow==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert locked
    assert image["tag"] == VALUES["airflowVersion"] == locked[1]
    assert stages()["airflow"].user == f"{VALUES['uid']}:{VALUES['gid']}"
    security = RECEIVER["spec"]["template"]["spec"]["securityContext"]
    assert security == VALUES["securityContexts"]["pod"]
