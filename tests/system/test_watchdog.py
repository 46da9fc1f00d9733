"""A bad night under the whole Airflow: no backup, people told, relaunched, escalated while Vault is sealed, mended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from pv_backup.operators.escalation import RELAUNCH, WATCHDOG
from pv_backup.services.days import PARIS, choose_day
from tests.support.people import People, on_call
from tests.support.servers import TestStack
from tests.system.airflow_world import DAG_ID, AirflowWorld, manifest_key, opened
from tests.system.whole_airflow import WholeAirflow, running, until

pytestmark = pytest.mark.case("TC-NOM-06", "TC-ERR-05")

Runs = dict[str, dict[str, str]]  # dag_id → run_id → state
Tasks = dict[str, tuple[str, int]]  # task_id → state, number of tries

WATCHED_AT = time(4, 0)
PRESENT_S = 30
OVER = {"success", "failed"}


@dataclass(frozen=True)
class Night:
    """What happened, as the API and the people on call tell it.

    :ivar sealed_day: whose dump failed, and whose relaunch too, while Vault was sealed.
    :ivar missing_day: that nobody had backed up.
    :ivar escalated: the runs of each DAG when the escalation had come; ``mended``: at the end.
    :ivar found_none: the tasks of the watchdog's run that found no backup, then cleared and run again: ``retried``.
    :ivar found_it: its other run, which began at the same time, and the seconds that its tasks were at work.
    """

    world: AirflowWorld
    people: People
    sealed_day: date
    missing_day: date
    escalated: Runs
    mended: Runs
    found_none: Tasks
    retried: Tasks
    found_it: tuple[Tasks, float]


class Operator:
    """The person before the UI."""

    def __init__(self, airflow: WholeAirflow, world: AirflowWorld) -> None:
        self._airflow = airflow
        self._log = world.folder / "standalone.log"

    def unpause(self, *dag_ids: str) -> None:
        for dag_id in dag_ids:
            until(lambda it=dag_id: self._airflow.knows(it), meaning=f"{dag_id} is known", log=self._log)
            self._airflow.call("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, day: date) -> str:
        form = {"logical_date": None, "conf": {"day": day.isoformat(), "reason": "by hand"}}
        run_id: str = self._airflow.call("POST", f"dags/{dag_id}/dagRuns", json=form)["dag_run_id"]
        return run_id

    def runs(self, *dag_ids: str) -> Runs:
        return {
            dag_id: {run["dag_run_id"]: run["state"] for run in self._listed(f"{dag_id}/dagRuns", "dag_runs")}
            for dag_id in dag_ids
        }

    def tasks(self, dag_id: str, run_id: str) -> Tasks:
        return {task["task_id"]: (task["state"], task["try_number"]) for task in self._tasks(dag_id, run_id)}

    def seconds(self, dag_id: str, run_id: str) -> float:
        """How long the tasks of a run were at work, without the time that they waited for the scheduler."""
        ran = [task for task in self._tasks(dag_id, run_id) if task["try_number"]]
        spans = [[datetime.fromisoformat(task[name]) for name in ("start_date", "end_date")] for task in ran]
        return sum((ended - began).total_seconds() for began, ended in spans)

    def wait_for_the_end(self, dag_id: str, *, of: int) -> None:
        """Until so many runs of the DAG are over, and none is under way."""

        def all_over() -> bool:
            states = list(self.runs(dag_id)[dag_id].values())
            return len(states) == of and set(states) <= OVER

        until(all_over, meaning=f"{of} runs of {dag_id} are over", log=self._log)

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Let a task and what follows it run again."""
        which = {"dag_run_id": run_id, "task_ids": [task_id], "include_downstream": True}
        self._airflow.call(
            "POST", f"dags/{dag_id}/clearTaskInstances", json={**which, "dry_run": False, "only_failed": False}
        )

    def _tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return self._listed(f"{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")

    def _listed(self, path: str, name: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self._airflow.call("GET", f"dags/{path}")[name]
        return listed


@pytest.fixture(scope="module")
def night(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    today = choose_day(datetime.now(UTC), "today")
    yesterday = today - timedelta(days=1)
    # The scheduler makes up for the watchdog's newest run, which is yesterday's until 04:00.
    sealed_day = today if datetime.now(PARIS).time() >= WATCHED_AT else yesterday
    missing_day = yesterday if sealed_day == today else today

    with opened(stack, tmp_path_factory.mktemp("night")) as world, on_call() as people:
        world.fill_source()
        world.env |= people.environment | {"PV_BACKUP_WATCHDOG_WAIT_S": "10"}
        with running(world) as airflow:
            operator = Operator(airflow, world)

            stack.vault.seal()
            operator.unpause(DAG_ID, RELAUNCH)
            operator.wait_for_the_end(DAG_ID, of=1)
            operator.unpause(WATCHDOG)
            operator.wait_for_the_end(WATCHDOG, of=1)
            escalated = operator.runs(WATCHDOG, RELAUNCH)

            stack.vault.start()
            operator.trigger(RELAUNCH, sealed_day)
            at_once = [operator.trigger(WATCHDOG, missing_day) for _ in range(2)]
            operator.wait_for_the_end(WATCHDOG, of=3)
            absent, present = sorted(at_once, key=lambda run: operator.tasks(WATCHDOG, run)["wait_for_backup"])
            found_none = operator.tasks(WATCHDOG, absent)
            found_it = operator.tasks(WATCHDOG, present), operator.seconds(WATCHDOG, present)
            operator.clear(WATCHDOG, absent, "start_relaunch")
            operator.wait_for_the_end(WATCHDOG, of=3)
            retried = operator.tasks(WATCHDOG, absent)
            mended = operator.runs(WATCHDOG, RELAUNCH, DAG_ID)
        yield Night(world, people, sealed_day, missing_day, escalated, mended, found_none, retried, found_it)


def test_a_relaunch_that_fails_turns_the_watchdog_red(night: Night):
    assert list(night.escalated[WATCHDOG].values()) == ["failed"]
    assert night.escalated[RELAUNCH] == {f"watchdog__{night.sealed_day}": "failed"}


def test_people_are_told_once_of_each_thing_by_mail_and_by_webhook(night: Night):
    told = Counter(
        (alert["dag_id"], alert["level"], alert["code"], alert["day"]) for alert in night.people.webhook.received
    )

    assert {what: times for what, times in told.items() if what[0] == WATCHDOG} == {
        (WATCHDOG, "warning", "WATCHDOG-ABSENT", str(night.sealed_day)): 1,
        (WATCHDOG, "critical", "ERR-47-05", str(night.sealed_day)): 1,
        (WATCHDOG, "warning", "WATCHDOG-ABSENT", str(night.missing_day)): 1,
    }
    assert told[(DAG_ID, "critical", "ERR-47-02", str(night.sealed_day))] == 1
    # The watchdog speaks for the relaunch that it started.
    assert {what[0] for what in told} == {WATCHDOG, DAG_ID}
    mailed = Counter(tuple(subject.split()[1:]) for subject in night.people.mail.subjects)
    assert mailed == Counter({(level.upper(), code, dag_id, day): n for (dag_id, level, code, day), n in told.items()})


def test_the_escalation_says_what_to_do_and_where_to_look(night: Night):
    (escalation,) = [alert for alert in night.people.webhook.received if alert["code"] == "ERR-47-05"]

    assert f"run watchdog__{night.sealed_day} of {RELAUNCH} failed" in escalation["cause"]
    assert "by hand" in escalation["next_step"]
    assert f"/dags/{WATCHDOG}/runs/scheduled__" in escalation["run_url"]


def test_two_watchdogs_at_once_and_a_retry_make_one_relaunch(night: Night):
    assert night.found_none == {
        "wait_for_backup": ("failed", 1),
        "start_relaunch": ("success", 1),
        "wait_for_relaunch": ("success", 1),
    }
    assert night.retried == {
        "wait_for_backup": ("failed", 1),
        "start_relaunch": ("success", 2),
        "wait_for_relaunch": ("success", 2),
    }
    by_watchdog = {run: state for run, state in night.mended[RELAUNCH].items() if run.startswith("watchdog__")}
    assert by_watchdog == {f"watchdog__{night.sealed_day}": "failed", f"watchdog__{night.missing_day}": "success"}
    assert sorted(night.mended[WATCHDOG].values()) == ["failed", "success", "success"]


@pytest.mark.case("TC-NOM-05")
def test_a_watchdog_that_finds_the_backup_is_done_at_once(night: Night):
    tasks, seconds = night.found_it

    assert {task: state for task, (state, _) in tasks.items()} == {
        "wait_for_backup": "success",
        "start_relaunch": "skipped",
        "wait_for_relaunch": "skipped",
    }
    assert seconds < PRESENT_S


def test_a_relaunch_by_hand_mends_what_the_watchdogs_could_not(night: Night):
    (by_hand,) = [state for run, state in night.mended[RELAUNCH].items() if not run.startswith("watchdog__")]

    assert by_hand == "success"
    assert Counter(night.mended[DAG_ID].values()) == {"failed": 2, "success": 2}


def test_both_days_end_with_a_verified_and_published_backup(night: Night):
    rows = night.world.sql("SELECT day, status FROM pv_backup.backup_executions WHERE type = 'pg_dump' ORDER BY day")

    assert rows == [{"day": day, "status": "SUCCESS"} for day in sorted((night.sealed_day, night.missing_day))]
    assert {manifest_key(row["day"]) for row in rows} <= set(night.world.versions())
    outcomes = Counter(outcome for _, outcome in night.world.outcomes())
    assert outcomes == {"FAILED": 2, "SUCCESS": 2}
