"""The watchdog by itself under `airflow dags test`, with the journal's database shut: it needs none (INV-47-06)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pv_backup.operators.escalation import RELAUNCH, WATCHDOG, WATCHDOG_RUN_ID
from pv_backup.services.days import choose_day
from tests.support.people import People, on_call
from tests.system.airflow_world import AirflowWorld, manifest_key, object_key, wait_for
from tests.system.test_servers_fail import let_nobody_into_the_journal

WAIT_S = 3
ALERT_WITHIN = timedelta(seconds=30)


@pytest.fixture
def people() -> Iterator[People]:
    with on_call() as people:
        yield people


@pytest.fixture
def watched(world: AirflowWorld, people: People) -> AirflowWorld:
    """An Airflow whose watchdog reaches people, and never the journal."""
    world.env |= people.environment
    let_nobody_into_the_journal(world)
    return world


def one(world: AirflowWorld, question: str, **values: object) -> Any:
    """The one answer that Airflow's own database has, None if there is none."""
    with psycopg.connect(world.metadata_dsn) as connection:
        row = connection.execute(question, values).fetchone()
    return row and row[0]


def put_the_backup(world: AirflowWorld) -> None:
    today = choose_day(datetime.now(UTC), "today")
    for key in (object_key(today), manifest_key(today)):
        world.bucket.admin.put_object(Bucket=world.bucket.name, Key=key, Body=b"{}")


@pytest.mark.case("TC-NOM-05", "TC-INV-06")
def test_a_backup_that_is_there_ends_it_within_30_seconds(watched: AirflowWorld, people: People):
    put_the_backup(watched)

    ended = watched.run(WATCHDOG)

    assert ended.exit_code == 0, ended.log
    assert watched.tasks() == {
        "wait_for_backup": ("success", 1),
        "start_relaunch": ("skipped", 0),
        "wait_for_relaunch": ("skipped", 1),
    }
    # Of all tasks that ran, without the start of the command line.
    at_work = "SELECT sum(end_date - start_date) FROM task_instance WHERE try_number > 0"
    assert one(watched, at_work) < timedelta(seconds=30)
    assert people.codes == []


@pytest.mark.case("TC-NOM-06", "TC-ERR-05", "TC-INV-06")
def test_an_absent_backup_is_told_and_a_failed_relaunch_escalated(watched: AirflowWorld, people: People):
    watched.env["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "False"
    run = watched.start(WATCHDOG, cold=True, watchdog_wait_s=WAIT_S)

    wait_for(lambda: people.webhook.received, run=run, meaning="people are told that the backup is absent")
    told_at = datetime.now(UTC)
    began = one(watched, "SELECT start_date FROM task_instance WHERE task_id = 'wait_for_backup'")
    assert timedelta(seconds=WAIT_S) <= told_at - began < timedelta(seconds=WAIT_S) + ALERT_WITHIN
    relaunch = "SELECT state FROM dag_run WHERE dag_id = %(dag_id)s AND run_id = %(run_id)s"
    today = choose_day(datetime.now(UTC), "today")
    its = {"dag_id": RELAUNCH, "run_id": WATCHDOG_RUN_ID.format(day=today)}
    wait_for(lambda: one(watched, relaunch, **its) == "queued", run=run, meaning="the relaunch is started")
    mark_failed(watched, **its)
    ended = run.wait()

    assert ended.exit_code == 1
    assert people.codes == ["WATCHDOG-ABSENT", "ERR-47-05"]
    assert [told["level"] for told in people.webhook.received] == ["warning", "critical"]
    assert {told["day"] for told in people.webhook.received} == {today.isoformat()}
    assert one(watched, "SELECT conf->>'day' FROM dag_run WHERE dag_id = %(dag_id)s", **its) == today.isoformat()


@pytest.mark.soak
@pytest.mark.case("TC-ERR-05")
def test_a_relaunch_that_is_paused_is_escalated_and_not_waited_for(watched: AirflowWorld, people: People):
    ended = watched.run(WATCHDOG, watchdog_wait_s=0)

    assert ended.exit_code == 1
    assert people.codes == ["WATCHDOG-ABSENT", "ERR-47-05"]
    assert "pv_backup_relaunch is paused" in people.webhook.received[1]["cause"]
    assert one(watched, "SELECT run_id FROM dag_run WHERE dag_id = %(dag_id)s", dag_id=RELAUNCH) is None


@pytest.mark.soak
@pytest.mark.case("TC-ERR-05")
def test_a_relaunch_that_nobody_runs_ends_late_and_escalated(watched: AirflowWorld, people: People):
    watched.env["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "False"
    run = watched.start(WATCHDOG, cold=True, watchdog_wait_s=0, relaunch_timeout_s=60)

    wait_for(lambda: one(watched, "SELECT 1 FROM dag_run WHERE dag_id = %(it)s", it=RELAUNCH), run=run, meaning="start")
    time.sleep(120)  # relaunch_timeout_s and half the time that the relaunch has to say so itself
    assert not run.is_over
    ended = run.wait()

    assert ended.exit_code == 1
    assert "did not end in time, it is queued" in people.webhook.received[-1]["cause"]


def mark_failed(world: AirflowWorld, **its: str) -> None:
    """As a person does in the UI."""
    with psycopg.connect(world.metadata_dsn) as connection:
        connection.execute("UPDATE dag_run SET state = 'failed' WHERE dag_id = %(dag_id)s AND run_id = %(run_id)s", its)
