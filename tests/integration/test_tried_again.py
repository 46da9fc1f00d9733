"""A step that Airflow tries again after its attempt has ended: nothing is done twice, and nobody is told twice."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pv_backup.services.days import choose_day
from pv_backup.services.errors import AttemptOver
from tests.dags.dag_world import dag_bag
from tests.integration.backup_world import BackupWorld, backup_world
from tests.integration.journal_world import ERROR
from tests.integration.worker import become_worker, context_of
from tests.support.people import People

pytestmark = pytest.mark.case("TC-ERR-08")

DAG_ID = "pv_backup_daily_dump"
DAY = choose_day(datetime.now(UTC), "today")
STEPS = ["check_the_source", "stream_dump", "verify_upload", "publish_manifest", "record_success"]


@pytest.fixture
def world(stack, source_db, journal_db, bucket, monkeypatch) -> Iterator[BackupWorld]:
    become_worker(
        monkeypatch, stack, journal_dsn=journal_db.service_dsn, bucket=bucket.name, source_dsn=source_db.dump_dsn
    )
    with backup_world(stack, source_db, journal_db, bucket) as world:
        yield world


def tried_again(step: str, backup_id: str) -> tuple[Any, Any]:
    """The step as Airflow makes it for the next try, and its context."""
    task = copy.copy(dag_bag().dags[DAG_ID].get_task(step))
    task.backup_id, task.outlets = backup_id, []
    return task, context_of(task, params={"day": DAY.isoformat(), "reason": ""})


@pytest.mark.parametrize("step", STEPS)
def test_after_the_success_a_step_has_nothing_left_to_do(world: BackupWorld, step: str):
    attempt = world.back_up(day=DAY)
    before, events = world.journal.row(), world.bucket.versions()

    task, context = tried_again(step, attempt.backup_id)
    task.execute(context)

    assert (world.journal.row(), world.bucket.versions()) == (before, events)


@pytest.mark.parametrize("step", STEPS)
def test_after_a_failure_that_was_told_it_fails_and_tells_nobody(world: BackupWorld, people: People, step: str):
    attempt = world.open(day=DAY)
    world.bench.machine.fail(attempt.backup_id, **ERROR)
    task, context = tried_again(step, attempt.backup_id)

    with pytest.raises(AttemptOver) as over:
        task.execute(context)
    for callback in task.on_failure_callback:
        callback(context | {"exception": over.value})

    assert people.codes == []
