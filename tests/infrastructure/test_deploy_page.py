"""docs/deploy.md: its commands run as they stand there, on a new server, and what it says agrees with the code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg
import pytest
from airflow.configuration import retrieve_configuration_description
from airflow.sdk import Connection

from dev import airflow_env
from dev.airflow_env import ROOT
from dev.ports import free_ports
from dev.servers.postgres import BIN_DIR, Postgres
from pv_backup.hooks.mail_server import MailServerHook
from pv_backup.hooks.webhook import WebhookHook
from pv_backup.operators.configuration import ConnectionIds
from pv_backup.services.settings import Settings
from tests.dags.dag_world import dag_bag
from tests.integration.backup_world import KEY, backup_world
from tests.support.clusters import open_directory
from tests.support.pages import blocks, filled_in, paste
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-INF-04")

PAGE: Final = ROOT / "docs" / "deploy.md"
UNITS: Final = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
SOURCE, JOURNAL, AIRFLOW = "3. The source", "4. The journal, and Airflow's database", "7. Airflow"
FIRST_BACKUP = "8. The first backup"
PASSWORD: Final = "of-the-superuser"
SHELL: Final = {"PATH": f"{BIN_DIR}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


@pytest.fixture(scope="module")
def server(_guarded: None) -> Iterator[Postgres]:
    """A server on which nobody has done anything yet."""
    home = open_directory()
    postgres = Postgres(home=home, port=free_ports(["new"])["new"], password=PASSWORD, durable=False)
    postgres.start()
    yield postgres
    postgres.remove()


def page(server: Postgres, heading: str, *, show: str = "", **values: str) -> list[str]:
    """Follow a part; what it leaves in these variables of the shell is returned."""
    superuser = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "PGPASSWORD": PASSWORD}
    (block,) = blocks(PAGE)[heading]
    printed = paste(f"{filled_in(block, superuser | values)}\nprintenv {show}", SHELL) if show else ""
    return printed.splitlines()[-len(show.split()) :]


def test_the_sources_roles_may_do_what_they_are_for(server: Postgres):
    dump, receiver = page(server, SOURCE, show="DUMP_PASSWORD RECEIVER_PASSWORD")

    with psycopg.connect(server.dsn("postgres", user="pv_backup_dump", password=dump)) as connection:
        assert connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user").fetchone() == (True,)
    where = ["--host=127.0.0.1", f"--port={server.port}", "--username=pv_backup_receivewal", "--no-password"]
    for step in ("--create-slot", "--drop-slot"):
        command = [BIN_DIR / "pg_receivewal", *where, "--slot=it", step]
        subprocess.run(command, env=SHELL | {"PGPASSWORD": receiver}, check=True)


def test_the_probe_of_a_provider_leaves_no_slot(server: Postgres):
    (probe,) = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        for statement in probe.splitlines():
            connection.execute(statement)
        assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)


def test_the_journal_takes_records_and_gives_none_away(server: Postgres):
    owner, service, airflow = page(server, JOURNAL, show="OWNER_PASSWORD SERVICE_PASSWORD AIRFLOW_PASSWORD")
    dsn = server.dsn("journal", user="pv_backup_owner", password=owner)
    paste(filled_in(blocks(PAGE)[AIRFLOW][0], {"PV_BACKUP_JOURNAL_OWNER_DSN": dsn}), SHELL)

    with psycopg.connect(server.dsn("journal", user="pv_backup_service", password=service)) as connection:
        assert connection.execute("SELECT count(*) FROM pv_backup.backup_journal_events").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM pv_backup.backup_journal_events")
    with psycopg.connect(server.dsn("airflow", user="airflow", password=airflow)) as connection:
        connection.execute("CREATE TABLE its_own ()")


def test_the_first_backup_is_listed_and_verified(stack: TestStack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket) as world:
        world.fill()
        world.back_up()
    access = airflow_env.standalone_settings(
        vault_address=stack.vault.address,
        vault_token=stack.backup_token,
        s3_endpoint=stack.s3.endpoint,
        s3_key=stack.backup_user,
    )
    settings = {"BUCKET": bucket.name, "KMS_KEY_ID": "pv-backup-sse", "TRANSIT_KEY": "pv-backup"}
    values = access | {f"PV_BACKUP_{name}": value for name, value in settings.items()}

    endpoint = {"AWS_ENDPOINT_URL_S3": stack.s3.endpoint}
    printed = paste(filled_in(blocks(PAGE)[FIRST_BACKUP][0], values), SHELL | endpoint)

    assert KEY in printed
    assert "verified" in printed


def settings() -> dict[str, str]:
    """The variables of the page's environment files, as a shell reads them that sources the file."""
    lines = re.findall(r"^    ((?:[A-Z][A-Z0-9_]*)=\S.*)$", PAGE.read_text(), re.MULTILINE)
    words = [shlex.split(line) for line in lines]
    assert {len(split) for split in words} == {1}, "a value with a blank is quoted"
    return dict(split[0].split("=", 1) for split in words)


def test_its_settings_exist():
    description = retrieve_configuration_description(include_providers=True)
    options = {
        f"AIRFLOW__{section.upper()}__{option.upper()}"
        for section, content in description.items()
        for option in content["options"]
    }
    connections = {*vars(ConnectionIds()).values(), MailServerHook.default_conn_name, WebhookHook.default_conn_name}
    known = options | {f"AIRFLOW_CONN_{name.upper()}" for name in connections}
    known |= {f"PV_BACKUP_{name.upper()}" for name in Settings.model_fields} | {"PATH", "PYTHONPATH", "SSL_CERT_FILE"}

    assert set(settings()) - known == set()
    assert {"PV_BACKUP_BUCKET", "PV_BACKUP_KMS_KEY_ID", "PV_BACKUP_TRANSIT_KEY"} <= set(settings())


def test_its_connections_are_what_airflow_reads():
    for name, value in settings().items():
        if name.startswith("AIRFLOW_CONN_"):
            assert Connection.from_json(value, conn_id=name).conn_type in {"aws", "smtp", "http"}


def test_no_task_may_last_as_long_as_the_broker_waits():
    patience = timedelta(seconds=int(settings()["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"]))

    limits = [task.execution_timeout for dag in dag_bag().dags.values() for task in dag.tasks if task.execution_timeout]
    assert max(limits) < patience


def test_every_address_that_runs_a_worker_may_log_in_everywhere():
    text = PAGE.read_text()
    workers = set(
        re.search(r"^export WORKERS=.*: (\S+)$", (PAGE.parent / "vault.md").read_text(), re.MULTILINE)[1].split(",")
    )
    let_in = re.findall(r"^    hostssl +(\w+) +(\w+) +(\S+) ", text, re.MULTILINE)

    for role in ("pv_backup_dump", "pv_backup_service", "airflow"):
        assert {address for _, who, address in let_in if who == role} == workers, role


def test_it_unpauses_every_dag_that_begins_paused():
    named = set(re.findall(r"\bpv_backup_\w+", "".join(PAGE.read_text().partition("## 8.")[1:])))
    paused = {
        path.stem for path in (ROOT / "dags").glob("*.py") if "is_paused_upon_creation=False" not in path.read_text()
    }

    assert paused <= named


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_in_its_units_but_that_they_are_not_installed(unit: Path):
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)

    unheard = [
        line for line in verified.stderr.splitlines() if "/opt/pv-backup/.venv/bin/airflow is not exec" not in line
    ]
    assert unheard == []
