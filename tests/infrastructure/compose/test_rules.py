"""What docker-compose.yaml promises of every container, whoever adds the next one: form, limits, secrets."""

from __future__ import annotations

import json
import re
from graphlib import TopologicalSorter
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from tests.infrastructure.compose import composition
from tests.infrastructure.compose.composition import MAIN, ROOT, SERVERS, Service, raw, services, variables

pytestmark = pytest.mark.case("TC-INF-04")

every_service = pytest.mark.parametrize("name", sorted(services()))
_SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH$|ACCESS_KEY|FERNET|_CONN$|BROKER_URL|RESULT_BACKEND|SEAL")
_NOT_SECRET = {
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__WORKERS__SECRETS_BACKEND",
    "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS",
}
# Where a value carries a secret in its midst: a URL, a connection.
_CARRIED = re.compile(r"://[^/@\s]*:(?!\$\{)[^/@\s]+@|\"(?:password|secret_id)\": *\"(?!\$\{)")
_REMEDY = "run deploy/compose/secrets.sh first"


@pytest.mark.parametrize("file", [MAIN, SERVERS], ids=lambda file: file.name)
def test_the_compose_specification_knows_all_of_it(file: Path) -> None:
    """The schema is Compose's own, carried by the package check-jsonschema; it finds unknown keys and wrong types."""
    vendored = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendored.read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(raw(file))] == []


def test_the_servers_are_read_with_the_projects_own_paths_and_secrets() -> None:
    (included,) = raw(MAIN)["include"]
    assert included == {"path": str(SERVERS.relative_to(ROOT)), "project_directory": ".", "env_file": ".env"}


@every_service
def test_a_container_gets_nothing_that_it_does_not_need(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), (
        "a number, since the image may not know a name; not root"
    )
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["logging"]["options"]["max-size"], "Docker would keep logs until the disk is full"
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "cap_add"} & set(service)


@every_service
def test_images_are_pinned(name: str) -> None:
    image = services()[name]["image"]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-\w+)?", image), f"{image} could be another one tomorrow"


@every_service
def test_ports_are_open_to_this_machine_alone(name: str) -> None:
    for port in services()[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\d+", port)


@every_service
def test_what_runs_on_is_asked_whether_it_is_well(name: str) -> None:
    service = services()[name]
    if service["restart"] == "unless-stopped":
        assert {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])
    else:
        assert service["restart"] == "no"
        assert "healthcheck" not in service


@every_service
def test_a_container_waits_for_what_can_come(name: str) -> None:
    for needed, how in services()[name].get("depends_on", {}).items():
        runs_on = services()[needed]["restart"] == "unless-stopped"
        assert how["condition"] == ("service_healthy" if runs_on else "service_completed_successfully"), needed


def test_no_container_waits_for_itself() -> None:
    order = TopologicalSorter({name: set(service.get("depends_on", {})) for name, service in services().items()})
    begin = tuple(order.static_order())
    assert begin.index("provision-vault") < begin.index("s3") < begin.index("provision-data") < begin.index("worker")


@pytest.mark.parametrize("file", [MAIN, SERVERS], ids=lambda file: file.name)
def test_volumes_are_declared_and_mounted_files_are_there(file: Path) -> None:
    used = set()
    for service in raw(file)["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert mount.endswith(":ro")
            else:
                used.add(source)
    assert used == set(raw(file)["volumes"])


@every_service
def test_no_secret_is_written_down(name: str) -> None:
    """Whatever is named like a secret, or carries one, has it from the secrets' file."""
    for variable, value in services()[name].get("environment", {}).items():
        if _SECRET_NAME.search(variable) and variable not in _NOT_SECRET:
            assert variables(value), f"{variable} is written down"
        assert not _CARRIED.search(str(value)), f"{variable} has a secret in it"


def test_every_secret_is_drawn_and_wanted(tmp_path: Path) -> None:
    wanted = {secret for service in services().values() for secret in variables(service)}
    assert set(composition.drawn_secrets(tmp_path / ".env")) == wanted


@every_service
def test_whoever_has_drawn_no_secrets_is_told_how(name: str) -> None:
    """Each mention says it: Compose stops at the first one that it comes to."""
    text = json.dumps(services()[name])
    assert text.count("${SECRET_") == text.count(f":?{_REMEDY}}}")


@pytest.mark.parametrize(
    ("secret", "holders"),
    [
        ("SECRET_VAULT_SEAL_KEY", {"vault"}),
        ("SECRET_SOURCE_SUPERUSER", {"source", "provision-data"}),
        ("SECRET_SOURCE_PV_BACKUP_DUMP", {"provision-data"}),
        ("SECRET_POSTGRES_SUPERUSER", {"database", "provision-data"}),
        ("SECRET_POSTGRES_PV_BACKUP_OWNER", {"provision-data"}),
        ("SECRET_POSTGRES_PV_BACKUP_SERVICE", {"provision-data"}),
        ("SECRET_S3_ADMIN_SECRET_KEY", {"s3", "provision-data"}),
        ("SECRET_VAULT_SECRET_ID", {"provision-vault", "worker", "wal-worker"}),
        ("SECRET_VAULT_BACKUP_TOKEN", {"provision-vault", "pv_backup"}),
        ("SECRET_S3_BACKUP_SECRET_KEY", {"s3", "worker", "wal-worker", "pv_backup"}),
        ("SECRET_S3_WATCHDOG_SECRET_KEY", {"s3", "triggerer"}),
        ("SECRET_AIRFLOW_UI_PASSWORD", {"api-server"}),
    ],
)
def test_a_secret_is_held_by_who_uses_it(secret: str, holders: set[str]) -> None:
    assert {name for name, service in services().items() if secret in variables(service)} == holders


def test_vaults_root_token_is_seen_by_who_provisions_alone() -> None:
    def mounts(service: Service) -> list[str]:
        return [mount.split(":")[0] for mount in service.get("volumes", [])]

    assert {name for name, service in services().items() if "vault-admin" in mounts(service)} == {
        "provision-vault",
        "provision-data",
    }


def test_git_ignores_the_secrets() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
