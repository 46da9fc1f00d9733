"""A server fails under a run of the real DAG: Vault is sealed, the journal shuts its door."""

from __future__ import annotations

import re
from datetime import datetime

import psycopg
import pytest
from psycopg import sql

from tests.support.people import on_call
from tests.support.webhook import SECRET_PATH
from tests.system.airflow_world import AirflowWorld, manifest_key
from tests.system.dump_gate import DumpGate
from tests.system.leaks import files_with

SECONDS_TO_FAIL_CLOSED = 60


@pytest.mark.case("TC-ERR-02", "TC-INV-02", "TC-INV-03")
def test_a_sealed_vault_stops_the_run_at_once_with_an_alert_on_every_channel(world: AirflowWorld):
    world.fill_source()
    world.stack.vault.seal()

    with on_call() as people:
        world.env.update(people.environment)
        ended = world.run()

    assert ended.exit_code == 1
    assert people.codes == ["ERR-47-02"]
    (posted,) = people.webhook.received
    assert posted["run_url"].startswith(world.env["AIRFLOW__API__BASE_URL"])
    assert posted["run_url"] in people.mail.text_of()
    assert posted["backup_id"] in {str(world.row(name)["backup_id"]) for name in ("pg_dump", "globals")}
    assert SECRET_PATH not in ended.log
    assert files_with(world.folder, SECRET_PATH.encode()) == []
    assert world.tasks()["stream_dump"] == ("failed", 1)
    # Roles and dump fail of the same; whichever comes first tells.
    (alerted,) = ended.lines_with("ALERT critical ERR-47-02")
    began = [time_of(line) for line in ended.lines_with("starting", "task_id=") if time_of(line) < time_of(alerted)]
    assert (time_of(alerted) - began[-1]).total_seconds() < SECONDS_TO_FAIL_CLOSED
    assert "sealed" in alerted
    row = world.row()
    assert (row["status"], row["error_code"]) == ("FAILED", "ERR-47-02")
    assert world.outcomes() == [(str(row["backup_id"]), "FAILED")]
    # All at once: which of them is first is chance.
    assert sorted(alert["channel"] for alert in world.alerts()) == ["log", "mail", "webhook"]
    assert world.nothing_of_the_dump_in_the_bucket()


@pytest.mark.case("TC-ERR-06")
def test_a_journal_that_shuts_its_door_in_mid_run_prevents_success(world: AirflowWorld):
    world.fill_source()
    run = world.start(max_export_retries=0, lease_s=15)
    gate = DumpGate(world, run)
    gate.waiting_dump()

    let_nobody_into_the_journal(world)
    gate.open()
    ended = run.wait()
    let_everybody_into_the_journal(world)

    assert ended.exit_code == 1
    assert ended.lines_with("ALERT critical ERR-47-06")
    assert world.tasks()["stream_dump"] == ("failed", 1)
    assert world.row()["status"] == "RUNNING"  # with a lease that runs out: reconciliation's to settle
    assert world.outcomes() == []
    assert manifest_key(world.row()["day"]) not in world.versions()
    assert world.open_uploads() == []


def let_nobody_into_the_journal(world: AirflowWorld) -> None:
    with psycopg.connect(world.stack.postgres.dsn("postgres"), autocommit=True) as connection:
        name = world.journal.superuser_dsn.rpartition("/")[2]
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])


def let_everybody_into_the_journal(world: AirflowWorld) -> None:
    with psycopg.connect(world.stack.postgres.dsn("postgres"), autocommit=True) as connection:
        name = world.journal.superuser_dsn.rpartition("/")[2]
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))


def time_of(line: str) -> datetime:
    stamp = re.match(r"\S+", line)
    assert stamp
    return datetime.fromisoformat(stamp.group())
