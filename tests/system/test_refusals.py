"""What the DAG refuses before a byte is dumped: a role that cannot read all, a day that failed too often."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.orm import sessionmaker

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.database import engine_for
from pv_backup.services.days import choose_day
from pv_backup.services.state import StateMachine
from tests.system.airflow_world import AirflowWorld


@pytest.fixture
def poor_role(world: AirflowWorld) -> Iterator[str]:
    """A role of the source that may read one table and not the other, put into the DAG's connection."""
    role, password = f"poor_{secrets.token_hex(4)}", secrets.token_hex(8)
    with psycopg.connect(world.source.superuser_dsn, autocommit=True) as connection:
        named = sql.Identifier(role)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(named, password))
        connection.execute("CREATE TABLE open_book (id int); CREATE TABLE sealed_book (id int)")
        connection.execute(sql.SQL("GRANT SELECT ON open_book TO {}").format(named))
        name = "AIRFLOW_CONN_PV_BACKUP_SOURCE"
        world.env[name] = json.dumps(json.loads(world.env[name]) | {"login": role, "password": password})
        yield role
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(named))


@pytest.mark.case("TC-ERR-01")
def test_a_role_that_cannot_read_everything_is_named_before_a_byte_is_dumped(world: AirflowWorld, poor_role: str):
    ended = world.run()

    assert ended.exit_code == 1
    assert world.tasks()["check_the_source"] == ("failed", 1)
    assert world.tasks()["stream_dump"][0] == "upstream_failed"
    (alert,) = world.alerts()
    assert poor_role in alert["cause"]
    assert "table sealed_book" in alert["cause"]
    assert "open_book" not in alert["cause"]
    assert "SUPERUSER" in alert["next_step"]
    assert (world.row()["status"], world.row()["error_code"]) == ("FAILED", "CONFIGURATION")
    assert world.versions() == {}
    assert world.open_uploads() == []


def failed_as_often_as_allowed(world: AirflowWorld, cycles: int) -> None:
    """Let the day fail until nothing but the circuit breaker is left."""
    engine = engine_for(world.journal.service_dsn)
    machine = StateMachine(sessionmaker(engine))
    for number in range(cycles + 1):
        attempt = machine.open_day(
            artefact_type=ArtefactType.PG_DUMP,
            day=choose_day(datetime.now(UTC), "today"),
            run_id=f"run {number}",
            lease_s=60,
            max_replanification_cycles=cycles,
        )
        machine.fail(attempt.backup_id, error_code="ERR-47-01", error_text="pg_dump was killed")
    engine.dispose()


@pytest.mark.case("TC-NEG-08")
def test_the_circuit_breaker_refuses_the_day_with_a_critical_alert(world: AirflowWorld):
    failed_as_often_as_allowed(world, cycles=1)
    before = world.row()

    ended = world.run(max_replanification_cycles=1)

    assert ended.exit_code == 1
    assert world.tasks()["open_the_day"] == ("failed", 1)
    (alert,) = world.alerts()
    assert (alert["level"], alert["code"]) == ("critical", "CIRCUIT-BREAKER")
    assert ended.lines_with("CircuitBreakerOpen")
    assert world.row() == before
    (refused,) = world.audit("transition_refused")
    assert (refused["details"]["from"], refused["details"]["to"]) == ("FAILED", "SCHEDULED")
    assert world.versions() == {}
