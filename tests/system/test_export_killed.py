"""ERR-47-01 by the real DAG: pg_dump killed in the middle, at every attempt, and once."""

from __future__ import annotations

import signal

import pytest

from tests.system.airflow_world import AirflowWorld, Ended
from tests.system.dump_gate import DumpGate

pytestmark = pytest.mark.case("TC-ERR-01")

MEGABYTES = 32  # pg_dump writes bytea as hexadecimal text, twice as long
KILLED_AT_MB = 16  # a part of the upload is full, and most of the dump is still to come
TRIES = 4


def run_with_kills(world: AirflowWorld, kills: int) -> Ended:
    """Run the DAG and kill pg_dump in the middle of each of its first so many tries."""
    world.fill_source(megabytes=MEGABYTES)
    run = world.start(delay_initial_ms=10, part_size_mb=5)
    gate = DumpGate(world, run)
    for _ in range(kills):
        gate.dump_that_has_written(KILLED_AT_MB).send_signal(signal.SIGKILL)
        gate.close()
    gate.open()
    return run.wait()


@pytest.mark.case("TC-INV-05")
def test_killed_at_every_try_ends_failed_with_an_alert_and_leaves_nothing(world: AirflowWorld):
    ended = run_with_kills(world, TRIES)

    assert ended.exit_code == 1
    assert world.tasks()["stream_dump"] == ("failed", TRIES)
    row = world.row()
    assert (row["status"], row["error_code"]) == ("FAILED", "ERR-47-01")
    assert "pg_dump was ended by signal 9" in row["error_text"]
    assert world.outcomes() == [(str(row["backup_id"]), "FAILED")]
    assert world.nothing_of_the_dump_in_the_bucket()
    (alert,) = world.alerts()
    assert (alert["level"], alert["code"], alert["backup_id"]) == ("critical", "ERR-47-01", str(row["backup_id"]))
    assert alert["next_step"]
    assert len(ended.lines_with("ALERT critical ERR-47-01")) == 1


@pytest.mark.case("TC-INV-05", "TC-INV-02")
def test_killed_once_succeeds_on_the_retry_under_the_same_backup_id(world: AirflowWorld):
    ended = run_with_kills(world, 1)

    assert ended.exit_code == 0, ended.log
    assert world.tasks()["stream_dump"] == ("success", 2)
    row = world.row()
    assert (row["status"], row["replanification_count"]) == ("SUCCESS", 0)
    (started,) = [event for event in world.audit("run_started") if event["backup_id"] == row["backup_id"]]
    assert world.outcomes() == [(str(started["backup_id"]), "SUCCESS")]
    assert world.open_uploads() == []
    assert world.alerts() == []
