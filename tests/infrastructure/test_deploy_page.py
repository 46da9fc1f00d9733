"""docs/deploy.md: its commands run as they stand there, on a new server, and what it says agrees with the code."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg
import pytest
from airflow.configuration import retrieve_configuration_description
from airflow.sdk import Connection
from psycopg.conninfo import conninfo_to_dict

from dev import airflow_env
from dev.airflow_env import ROOT
from dev.bench.tls import Certificate
from dev.servers.postgres import BIN_DIR, Postgres
from pv_backup.hooks.mail_server import MailServerHook
from pv_backup.hooks.webhook import WebhookHook
from pv_backup.operators.configuration import ConnectionIds
from pv_backup.services.settings import Settings
from tests.dags.dag_world import dag_bag
from tests.infrastructure.ansible.tls_front import tls_front
from tests.infrastructure.deploy_page import (
    AIRFLOW,
    AUTHORITIES,
    FIRST_BACKUP,
    JOURNAL,
    PAGE,
    SHELL,
    SOURCE,
    block_with,
    follow,
    part,
    settings,
)
from tests.integration.backup_world import KEY, backup_world
from tests.support.pages import blocks, filled_in, paste
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-INF-04")

UNITS: Final = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
NUMBERS: Final = {"two": 2, "three": 3, "four": 4}


def test_the_sources_roles_may_do_what_they_are_for(server: Postgres):
    dump, receiver = follow(server, SOURCE, show="DUMP_PASSWORD RECEIVER_PASSWORD")

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
    owner, service, airflow = follow(server, JOURNAL, show="OWNER_PASSWORD SERVICE_PASSWORD AIRFLOW_PASSWORD")
    dsn = server.dsn("journal", user="pv_backup_owner", password=owner)
    paste(filled_in(block_with(AIRFLOW, "alembic"), {"PV_BACKUP_JOURNAL_OWNER_DSN": dsn}), SHELL)

    with psycopg.connect(server.dsn("journal", user="pv_backup_service", password=service)) as connection:
        assert connection.execute("SELECT count(*) FROM pv_backup.backup_journal_events").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM pv_backup.backup_journal_events")
    with psycopg.connect(server.dsn("airflow", user="airflow", password=airflow)) as connection:
        connection.execute("CREATE TABLE its_own ()")


def test_the_first_backup_is_listed_and_verified(stack: TestStack, source_db, journal_db, bucket, tmp_path: Path):
    """By a Vault whose certificate is of an authority of its own."""
    with backup_world(stack, source_db, journal_db, bucket) as world:
        world.fill()
        world.back_up()
    certificate = Certificate.drawn(tmp_path)
    access = airflow_env.standalone_settings(
        vault_address="",
        vault_token=stack.backup_token,
        s3_endpoint=stack.s3.endpoint,
        s3_key=stack.backup_user,
    )
    settings = {"BUCKET": bucket.name, "KMS_KEY_ID": "pv-backup-sse", "TRANSIT_KEY": "pv-backup"}
    values = access | {f"PV_BACKUP_{name}": value for name, value in settings.items()}

    endpoint = {"AWS_ENDPOINT_URL_S3": stack.s3.endpoint}
    with tls_front(certificate, stack.vault.address) as vault:
        values |= {"VAULT_ADDR": vault, "REQUESTS_CA_BUNDLE": str(certificate.certificate)}
        printed = paste(filled_in(block_with(FIRST_BACKUP, "pv_backup list"), values), SHELL | endpoint)

    assert KEY in printed
    assert "verified" in printed


def test_its_settings_exist():
    description = retrieve_configuration_description(include_providers=True)
    options = {
        f"AIRFLOW__{section.upper()}__{option.upper()}"
        for section, content in description.items()
        for option in content["options"]
    }
    connections = {*vars(ConnectionIds()).values(), MailServerHook.default_conn_name, WebhookHook.default_conn_name}
    known = options | {f"AIRFLOW_CONN_{name.upper()}" for name in connections}
    known |= {f"PV_BACKUP_{name.upper()}" for name in Settings.model_fields}
    known |= {"PATH", "PYTHONPATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PGSSLMODE", "PGSSLROOTCERT"}

    assert set(settings()) - known == set()
    assert {"PV_BACKUP_BUCKET", "PV_BACKUP_KMS_KEY_ID", "PV_BACKUP_TRANSIT_KEY"} <= set(settings())


def test_its_connections_are_what_airflow_reads():
    for name, value in settings().items():
        if name.startswith("AIRFLOW_CONN_"):
            assert Connection.from_json(value, conn_id=name).conn_type in {"aws", "smtp", "http"}


def test_whoever_logs_in_to_a_server_makes_sure_which_one_it_is():
    """No password is for whoever stands in between: each login of the page names mode and authorities.

    That of Airflow's own database has them from variables: its second library refuses them in the URL.
    """
    uris = re.findall(r"postgresql(?:\+\w+)?://(\S+?)'?$", PAGE.read_text(), re.MULTILINE)
    logins = [conninfo_to_dict(f"postgresql://{uri}") for uri in uris if not uri.startswith("airflow:")]
    logins.append({name: settings()[f"PG{name.upper()}"] for name in ("sslmode", "sslrootcert")})
    logins += [conninfo_to_dict(found) for found in re.findall(r"^    (host=.*)$", PAGE.read_text(), re.MULTILINE)]
    (connection,) = re.findall(r'^    (\{"conn_type": "postgres"(?:.*\n)+?.*"\})$', PAGE.read_text(), re.MULTILINE)
    logins.append(json.loads(json.loads(connection)["extra"]))

    assert [(login["sslmode"], login["sslrootcert"]) for login in logins] == [("verify-full", AUTHORITIES)] * 4


@pytest.mark.parametrize("heading", [SOURCE, JOURNAL])
def test_each_password_that_is_drawn_is_kept(heading: str):
    (drawn,) = blocks(PAGE)[heading]
    (kept,) = re.findall(r"\bKeep (?:the|all)\s(\w+)\spasswords", part(heading))

    assert NUMBERS[kept] == drawn.count("openssl rand")


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
