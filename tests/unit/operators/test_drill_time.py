"""A leg ends while its run has time left to record how it ended; the record waits for whoever must mend something."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowTaskTimeout

from pv_backup.operators import alerting
from pv_backup.operators.drill import TO_RECORD
from pv_backup.operators.retrying import MAX_RETRIES, PATIENT_DELAY, PATIENT_RETRIES, PatientRetryPolicy, next_delay
from pv_backup.services.drill import DrillOrder
from pv_backup.services.drill_calendar import MAY_LAST
from pv_backup.services.drill_errors import LegTooSlow
from pv_backup.services.errors import ConfigurationError, FailClosedError, JournalUnavailable, RefusedError
from pv_backup.services.evidence.document import Leg
from pv_backup.services.settings import Settings
from tests.dags.dag_world import dag_bag

pytestmark = pytest.mark.case("TC-ERR-07")

DRILL = "pv_backup_restoration_drill"
LEGS = ("restore_the_dump", "restore_the_cluster")
QUICK, PATIENT, LAST = 1, MAX_RETRIES + 1, PATIENT_RETRIES + 1


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("BUCKET", "KMS_KEY_ID", "TRANSIT_KEY"):
        monkeypatch.setenv(f"PV_BACKUP_{name}", "x")


def limit_of_a_leg(task_id: str, *, run_for: timedelta) -> timedelta:
    dag = dag_bag().dags[DRILL]
    leg: Any = copy.copy(dag.get_task(task_id))
    run = SimpleNamespace(start_date=datetime.now(UTC) - run_for)
    leg.pre_execute({"dag": dag, "dag_run": run})
    limit: timedelta = leg.execution_timeout
    return limit


@pytest.mark.parametrize("task_id", LEGS)
def test_a_leg_that_begins_in_time_has_its_twenty_hours(task_id: str):
    assert limit_of_a_leg(task_id, run_for=timedelta(minutes=30)) == timedelta(hours=20)


@pytest.mark.parametrize("task_id", LEGS)
@pytest.mark.parametrize("hours", [15, 20.5, 30, 40])
def test_whatever_went_before_the_run_can_record_how_it_ended(task_id: str, hours: float):
    """Another leg on the only worker, a queue, tries whose process was killed: none of them asks a retry policy."""
    dag, gone = dag_bag().dags[DRILL], timedelta(hours=hours)

    assert gone + limit_of_a_leg(task_id, run_for=gone) <= dag.dagrun_timeout - TO_RECORD


def test_both_legs_fit_into_a_run_one_after_the_other():
    dag = dag_bag().dags[DRILL]

    assert sum((dag.get_task(leg).execution_timeout for leg in LEGS), TO_RECORD) <= dag.dagrun_timeout < MAY_LAST


def test_a_leg_that_comes_too_late_begins_and_so_says_it():
    assert limit_of_a_leg(LEGS[0], run_for=timedelta(days=3)) > timedelta(0)


def test_what_took_all_its_time_is_not_tried_again():
    assert next_delay(LegTooSlow("it was still at work"), 1, Settings.load()) is None


@pytest.mark.parametrize(
    "error",
    [FailClosedError("x"), ConfigurationError("x"), JournalUnavailable("x"), OSError("x"), AirflowTaskTimeout("x")],
    ids=lambda error: type(error).__name__,
)
def test_the_record_waits_for_whatever_can_be_mended(error: BaseException):
    decision = PatientRetryPolicy().evaluate(error, PATIENT, PATIENT_RETRIES)

    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, PATIENT_DELAY)


def test_what_may_pass_by_itself_is_tried_again_soon_and_told_to_nobody():
    policy, error = PatientRetryPolicy(), JournalUnavailable("x")

    assert policy.evaluate(error, QUICK, PATIENT_RETRIES).retry_delay == timedelta(seconds=1)
    assert not policy.waits(error, QUICK, PATIENT_RETRIES)
    assert policy.waits(FailClosedError("x"), QUICK, PATIENT_RETRIES)


def test_the_last_try_leaves_the_telling_to_airflows_callback():
    assert not PatientRetryPolicy().waits(FailClosedError("x"), LAST, PATIENT_RETRIES)


@pytest.mark.parametrize(
    ("gone", "try_number", "left"),
    [
        (timedelta(minutes=30), QUICK, timedelta(hours=12)),
        (timedelta(minutes=30), PATIENT_RETRIES - 2, timedelta(minutes=45)),
        (timedelta(hours=41), QUICK, TO_RECORD),
        (timedelta(hours=45, minutes=30), QUICK, timedelta(minutes=30)),
    ],
    ids=str,
)
def test_people_hear_until_when_the_record_waits(
    monkeypatch: pytest.MonkeyPatch, gone: timedelta, try_number: int, left: timedelta
):
    said, now = [], datetime.now(UTC)
    monkeypatch.setattr(alerting, "alert_of", lambda _context, error, **_: said.append(error.remedy))
    monkeypatch.delenv("PV_BACKUP_BUCKET")
    dag = dag_bag().dags[DRILL]
    task: Any = copy.copy(dag.get_task("record_the_evidence"))
    order = DrillOrder.at("latest", drill_id="x", run_id="x", legs=list(Leg), now=now).model_dump(mode="json")
    ti = SimpleNamespace(try_number=try_number, max_tries=PATIENT_RETRIES, xcom_pull=lambda **_: order)
    run = SimpleNamespace(start_date=now - gone)

    with pytest.raises(ConfigurationError):
        task.execute({"ti": ti, "dag": dag, "dag_run": run, "task_state_store": {}})

    (text,) = said
    found = re.search(r"again every 15 min until (\S+ \S+) UTC: mended 15 min before that, nothing is lost$", text)
    assert found, text
    until = datetime.strptime(found[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    # To the minute, and as late as the machine was slow.
    assert now + left - timedelta(minutes=1) < until <= datetime.now(UTC) + left


def test_what_the_rules_refuse_is_not_waited_for():
    decision = PatientRetryPolicy().evaluate(RefusedError("no drill was begun"), QUICK, PATIENT_RETRIES)

    assert decision.action is RetryAction.FAIL


def test_a_cleared_record_waits_as_long_as_the_first_time():
    policy, error = PatientRetryPolicy(), JournalUnavailable("x")

    assert policy.evaluate(error, PATIENT + 1, PATIENT + PATIENT_RETRIES).retry_delay == timedelta(seconds=1)
