"""What the relaunch makes of each state that it may find a day in (SPEC F6)."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from pv_backup.operators.escalation import RELAUNCH, WATCHDOG
from pv_backup.operators.relaunch import ConfirmBackupOperator, ScheduleDayOperator
from pv_backup.sensors.live_run import LiveRunSensor
from pv_backup.services.days import PARIS, choose_day
from pv_backup.services.errors import BackupVanished, CircuitBreakerOpen, FormatRejected, RelaunchFailed
from pv_backup.services.relaunching import Relaunch
from tests.integration.backup_world import backup_world
from tests.integration.journal_world import ERROR
from tests.integration.worker import become_worker

pytestmark = pytest.mark.case("TC-NOM-06")

DUMP = "pv_backup_daily_dump"
IMPORTED = datetime.now(UTC)
DAY = choose_day(IMPORTED, "today")
KEY = f"{DAY:%Y/%m}/backup_{DAY:%Y%m%d}.enc"


@pytest.fixture
def world(stack, source_db, journal_db, bucket, monkeypatch):
    with backup_world(stack, source_db, journal_db, bucket) as world:
        become_worker(monkeypatch, stack, journal_dsn=journal_db.service_dsn, bucket=bucket.name)
        monkeypatch.setenv("PV_BACKUP_RELAUNCH_TIMEOUT_S", "60")
        yield world


def context(
    *, run_id: str = "manual__1", age_s: float = 0, watchdogs: int = 0, dump_paused: bool = False, **day: Any
) -> Any:
    """A run of the relaunch, and how many runs of the watchdog go on beside it."""

    def count(*, dag_id: str, states: list[str]) -> int:
        assert (dag_id, states) == (WATCHDOG, ["running"])
        return watchdogs

    def get_dag(dag_id: str) -> Any:
        assert dag_id == DUMP
        return SimpleNamespace(is_paused=dump_paused)

    ti = SimpleNamespace(
        dag_id=RELAUNCH, task_id="", log_url="", try_number=1, max_tries=3, get_dr_count=count, get_dag=get_dag
    )
    run = SimpleNamespace(
        run_after=day.get("run_after", IMPORTED), start_date=datetime.now(UTC) - timedelta(seconds=age_s)
    )
    return {"ti": ti, "run_id": run_id, "dag_run": run, "params": {"day": day.get("day", "today"), "reason": ""}}


def schedule(**run: Any) -> None:
    ScheduleDayOperator(task_id="schedule_the_day", dump_dag_id=DUMP).execute(context(**run))


def confirm(**run: Any) -> str:
    return ConfirmBackupOperator(task_id="confirm_the_backup").execute(context(**run))


def nobody_is_at_work(**run: Any) -> bool:
    return LiveRunSensor(task_id="wait_for_the_live_run").poke(context(**run))


def fail(world, times: int = 1) -> None:
    for number in range(times):
        world.bench.machine.fail(world.open(day=DAY, run_id=f"run {number}").backup_id, **ERROR)


def test_a_day_that_no_run_opened_is_left_to_the_dump(world):
    assert nobody_is_at_work()
    schedule()
    assert world.journal.sql("SELECT * FROM pv_backup.backup_executions") == []
    with pytest.raises(RelaunchFailed, match="its row is absent"):
        confirm()


def test_a_failed_day_is_scheduled_as_a_new_attempt_which_is_counted_once(world):
    fail(world)
    failed = world.journal.row()
    assert nobody_is_at_work()
    schedule()
    scheduled = world.journal.row()
    assert (scheduled["status"], scheduled["replanification_count"]) == ("SCHEDULED", 1)
    assert scheduled["backup_id"] != failed["backup_id"]
    attempt = world.open(day=DAY, run_id="the dump")
    assert (attempt.backup_id, attempt.replanification_count) == (str(scheduled["backup_id"]), 1)


def test_a_scheduled_day_is_as_it_should_be(world):
    fail(world)
    schedule()
    before = world.journal.row()
    assert nobody_is_at_work()
    schedule()
    assert world.journal.row() == before


def test_a_dump_that_is_paused_costs_the_day_no_cycle(world):
    fail(world)
    before = world.journal.row()
    with pytest.raises(RelaunchFailed, match="pv_backup_daily_dump is paused"):
        schedule(dump_paused=True)
    assert world.journal.row() == before


@pytest.mark.case("TC-NEG-08")
def test_the_circuit_breaker_ends_it(world, monkeypatch):
    monkeypatch.setenv("PV_BACKUP_MAX_REPLANIFICATION_CYCLES", "1")
    fail(world, times=2)
    with pytest.raises(CircuitBreakerOpen) as opened:
        schedule()
    assert not opened.value.told
    assert world.journal.row()["status"] == "FAILED"


def test_of_two_at_once_one_schedules_and_both_go_on(world):
    fail(world)
    failures = []

    def try_it() -> None:
        try:
            relaunch = Relaunch(day=DAY, sessions=world.journal.sessions, store=world.bench.store)
            assert relaunch.prepare(max_replanification_cycles=3)
        except Exception as error:  # noqa: BLE001 - the test's thread looks at it
            failures.append(error)

    both = [threading.Thread(target=try_it) for _ in range(2)]
    with world.journal.row_locked():
        for thread in both:
            thread.start()
        world.journal.wait_for_blocked(2)
    for thread in both:
        thread.join()
    assert failures == []
    assert world.journal.row()["replanification_count"] == 1


def test_a_live_run_is_waited_for(world):
    world.open(day=DAY)
    assert not nobody_is_at_work()
    world.journal.expire_lease()
    assert nobody_is_at_work()


def test_what_a_dead_run_left_is_settled_by_the_dump_itself(world):
    world.open(day=DAY)
    world.journal.expire_lease()
    schedule()
    assert world.journal.row()["status"] == "RUNNING"
    assert world.open(day=DAY, run_id="the dump").replanification_count == 1


@pytest.mark.case("TC-ERR-05")
@pytest.mark.parametrize(
    ("run_id", "watchdogs", "told"),
    [
        pytest.param("manual__1", 1, False, id="by hand"),
        pytest.param("watchdog__2026-11-22", 1, True, id="by the watchdog"),
        pytest.param("watchdog__2026-11-22", 0, False, id="by a watchdog that waits no longer"),
    ],
)
def test_a_live_run_that_never_ends_is_escalated_by_whoever_waits_last(world, run_id, watchdogs, told):
    world.open(day=DAY, run_id="the dump of the night")
    with pytest.raises(RelaunchFailed, match=r"did not end in time.*the dump of the night") as late:
        nobody_is_at_work(run_id=run_id, watchdogs=watchdogs, age_s=61)
    assert late.value.told is told


def test_a_day_with_its_backup_skips_the_rest(world):
    made = world.back_up(day=DAY)
    assert nobody_is_at_work()
    with pytest.raises(AirflowSkipException, match="published already"):
        schedule()
    assert confirm() == made.backup_id


@pytest.mark.parametrize("loss", ["object", "manifest", "exchanged"])
def test_a_closed_day_whose_backup_is_gone_is_critical(world, loss):
    world.back_up(day=DAY)
    manifest = world.bucket.manifest(KEY)
    if loss == "object":
        world.bucket.delete(KEY)
    elif loss == "manifest":
        world.bucket.delete(KEY.replace(".enc", ".manifest.json"))
    else:
        world.bucket.put_manifest(KEY, manifest | {"backup_id": "9f3c1a52-2f62-4f0c-9a51-0d6c7b7e8f10"})
    with pytest.raises(BackupVanished, match="the bucket has no published backup"):
        schedule()
    with pytest.raises(BackupVanished):
        confirm()
    assert world.journal.row()["status"] == "SUCCESS"


@pytest.mark.case("TC-ERR-05")
def test_a_backup_that_was_made_before_midnight_is_confirmed_after_it(world):
    """A relaunch for yesterday, whose dump ended after midnight: the day of the run has not changed."""
    late = datetime.combine(DAY, time(23, 0), tzinfo=PARIS) - timedelta(days=1)
    of_the_day_before = DAY - timedelta(days=2)
    attempt = world.back_up(day=of_the_day_before)

    assert confirm(run_after=late, day="yesterday") == attempt.backup_id
    with pytest.raises(FormatRejected, match="the data of now"):
        schedule(run_after=late, day="yesterday")


def test_a_green_dump_without_a_backup_is_no_success(world):
    fail(world)
    with pytest.raises(RelaunchFailed, match="its row is FAILED") as failed:
        confirm(run_id="watchdog__1", watchdogs=1)
    assert failed.value.told
