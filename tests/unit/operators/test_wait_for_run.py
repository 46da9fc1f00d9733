"""How the end of another run is judged, and until when it is waited for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferralError, TaskDeferralTimeout, TaskDeferred
from airflow.sdk.serde import deserialize, serialize

from pv_backup.operators.escalation import RELAUNCH, WATCHDOG, WATCHDOG_RUN_ID
from pv_backup.operators.wait_for_run import WaitForDumpOperator, WaitForRelaunchOperator
from pv_backup.services.days import choose_day
from pv_backup.services.errors import RelaunchFailed

pytestmark = pytest.mark.case("TC-ERR-05")

TIMEOUT_S = 600
AGE = timedelta(seconds=100)
DUMP = "pv_backup_daily_dump"


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    given = {"RELAUNCH_TIMEOUT_S": TIMEOUT_S, "BUCKET": "b", "KMS_KEY_ID": "k", "TRANSIT_KEY": "t"}
    for name, value in given.items():
        monkeypatch.setenv(f"PV_BACKUP_{name}", str(value))
    monkeypatch.setenv("AIRFLOW_VAR_PV_BACKUP_SETTINGS", "{}")


def waiting_relaunch() -> WaitForDumpOperator:
    return WaitForDumpOperator(task_id="wait_for_the_dump", dag_id_to_await=DUMP, run_id_to_await="relaunch__1")


def waiting_watchdog() -> WaitForRelaunchOperator:
    return WaitForRelaunchOperator(
        task_id="wait_for_relaunch",
        dag_id_to_await=RELAUNCH,
        run_id_to_await=WATCHDOG_RUN_ID,
        unless_succeeded="wait_for_backup",
    )


def context(
    dag_id: str = RELAUNCH, *, run_id: str = "manual__1", watchdogs: int = 0, sensor: str = "failed", state: str = ""
) -> Any:
    ti = SimpleNamespace(
        dag_id=dag_id,
        get_dr_count=lambda **_: watchdogs,
        get_task_states=lambda **_: {run_id: {"wait_for_backup": sensor}},
        get_dagrun_state=lambda *_: state,
    )
    run = SimpleNamespace(run_after=datetime.now(UTC), start_date=datetime.now(UTC) - AGE)
    return {"ti": ti, "run_id": run_id, "dag_run": run, "params": {"day": "today"}}


def deferred(operator: Any, its: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(its)
    return caught.value


def deadline_in(deferred: TaskDeferred) -> datetime:
    path, kwargs = deferred.trigger.serialize()
    again = import_string(path)(**deserialize(serialize(kwargs)))
    assert again.serialize() == deferred.trigger.serialize()
    return datetime.fromisoformat(again.deadline)


def test_the_relaunch_has_its_timeout_from_its_start_on():
    its = context()
    waiting = deferred(waiting_relaunch(), its)

    assert deadline_in(waiting) == its["dag_run"].start_date + timedelta(seconds=TIMEOUT_S)
    assert waiting.timeout > timedelta(seconds=TIMEOUT_S) - AGE


def test_the_watchdog_waits_a_little_longer_than_the_relaunch_can_last():
    its = context(WATCHDOG)
    waiting = deferred(waiting_watchdog(), its)

    assert deadline_in(waiting) > datetime.now(UTC) + timedelta(seconds=TIMEOUT_S + 60)
    assert waiting.trigger.run_id == f"watchdog__{choose_day(its['dag_run'].run_after, 'today')}"


def test_a_deadline_that_is_over_still_asks_once():
    its = context()
    its["dag_run"].start_date -= timedelta(days=1)

    assert deferred(waiting_relaunch(), its).timeout > timedelta()


def test_there_is_no_relaunch_to_wait_for_when_the_backup_was_there():
    with pytest.raises(AirflowSkipException):
        waiting_watchdog().execute(context(WATCHDOG, sensor="success"))


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("failed", "run relaunch__1 of pv_backup_daily_dump failed"),
        ("running", "did not end in time, it is running"),
        ("queued", "did not end in time, it is queued"),
        (None, "whether it ended is not known"),
    ],
)
def test_every_end_but_success_is_a_failed_relaunch(state, says):
    waiting_relaunch().execute_complete(context(), {"state": "success"})
    with pytest.raises(RelaunchFailed, match=says) as failed:
        waiting_relaunch().execute_complete(context(), {"state": state})
    assert "by hand" in failed.value.remedy


@pytest.mark.parametrize(
    ("dag_id", "run_id", "watchdogs", "told"),
    [
        pytest.param(RELAUNCH, "watchdog__2026-11-22", 1, True, id="the watchdog waits and escalates"),
        pytest.param(RELAUNCH, "watchdog__2026-11-22", 0, False, id="no watchdog waits any longer"),
        pytest.param(RELAUNCH, "manual__1", 1, False, id="by hand"),
        pytest.param(WATCHDOG, "watchdog__by-hand", 1, False, id="the watchdog itself"),
    ],
)
def test_a_failed_relaunch_is_told_by_whoever_waits_last(dag_id, run_id, watchdogs, told):
    with pytest.raises(RelaunchFailed) as failed:
        waiting_relaunch().execute_complete(context(dag_id, run_id=run_id, watchdogs=watchdogs), {"state": "failed"})
    assert failed.value.told is told


def test_an_airflow_that_cannot_say_who_waits_means_telling():
    its = context(run_id="watchdog__2026-11-22")
    del its["ti"].get_dr_count
    with pytest.raises(RelaunchFailed) as failed:
        waiting_relaunch().execute_complete(its, {"state": "failed"})
    assert failed.value.told is False


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_when_the_triggerer_is_dead_the_worker_asks_itself(reason):
    lost = {"next_method": "__fail__", "next_kwargs": {"error": reason}}
    waiting_relaunch().resume_execution(**lost, context=context(state="success"))
    with pytest.raises(RelaunchFailed, match="it is running") as failed:
        waiting_relaunch().resume_execution(**lost, context=context(state="running"))
    assert isinstance(failed.value.__context__, TaskDeferralTimeout | TaskDeferralError)
