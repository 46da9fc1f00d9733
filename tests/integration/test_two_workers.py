"""Two workers try the same move: one wins, the other is told who did. Both wait for the row's lock, so they meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pv_backup.services.errors import RefusedError, RunAlive, TransitionRefused
from pv_backup.services.models import BackupStatus
from tests.integration.journal_world import ARTEFACT, ERROR, opened

pytestmark = pytest.mark.case("TC-NEG-06")


@pytest.fixture
def world(journal_db):
    with opened(journal_db) as world:
        yield world


def outcome_of(call):
    try:
        return call()
    except RefusedError as refused:
        return refused


def race(world, *calls):
    with ThreadPoolExecutor(len(calls)) as pool:
        with world.row_locked():
            answers = [pool.submit(outcome_of, call) for call in calls]
            world.wait_for_blocked(len(calls))
        results = [answer.result(timeout=60) for answer in answers]
    won = [result for result in results if not isinstance(result, RefusedError)]
    lost = [result for result in results if isinstance(result, RefusedError)]
    assert (len(won), len(lost)) == (1, len(calls) - 1)
    return won[0], lost[0]


def test_two_create_the_day(world):
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(outcome_of, lambda n=n: world.open(run_id=f"run {n}")) for n in range(4)]
        results = [run.result(timeout=60) for run in runs]
    assert sorted(type(result).__name__ for result in results) == ["Attempt", "RunAlive", "RunAlive", "RunAlive"]
    world.row()


def test_two_start_a_failed_day_again(world):
    world.failed()
    won, lost = race(world, lambda: world.open(run_id="run 2"), lambda: world.open(run_id="run 3"))
    assert type(lost) is RunAlive
    assert world.row()["run_id"] in lost.what
    assert won.replanification_count == world.row()["replanification_count"] == 1


def test_two_schedule_again(world):
    old = world.failed().backup_id
    again = lambda: world.machine.schedule_again(old, max_replanification_cycles=3)  # noqa: E731
    new, lost = race(world, again, again)
    assert isinstance(lost, TransitionRefused)
    assert f"another worker replaced it by {new}" in lost.what
    assert world.row()["replanification_count"] == 1


def test_success_against_failure(world):
    attempt = world.open()
    world.machine.record_artefact(attempt.lease, ARTEFACT, {})
    world.machine.record_verified(attempt.lease)
    won, lost = race(
        world,
        lambda: world.machine.succeed(attempt.lease),
        lambda: world.machine.fail(attempt.backup_id, **ERROR),
    )
    assert isinstance(lost, TransitionRefused)
    assert won.outcome in lost.what
    assert world.row()["status"] == won.outcome == world.journal.event_of(attempt.backup_id).outcome


def test_two_expire(world):
    backup_id = world.published().backup_id
    expire = lambda: world.machine.transition(backup_id, BackupStatus.EXPIRED)  # noqa: E731
    _, lost = race(world, expire, expire)
    assert isinstance(lost, TransitionRefused)
    assert "EXPIRED already" in lost.what
