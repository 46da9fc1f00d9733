"""DAGs under the real scheduler: the night's own run, one by hand with the UI's form, one that fails, one killed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time

import psutil
import pytest

from pv_backup.services.days import PARIS, choose_day
from tests.support.documented_metrics import documented
from tests.support.people import People, on_call
from tests.support.servers import TestStack
from tests.support.statsd import statsd_listener
from tests.support.webhook import SECRET_PATH
from tests.system.airflow_world import DAG_ID, AirflowWorld, manifest_key, opened
from tests.system.leaks import any_with, files_with, found_in, secrets_of, whole_database
from tests.system.whole_airflow import PATIENCE_S, WholeAirflow, processes_of, running, until

pytestmark = pytest.mark.case("TC-NOM-01")

REASON = "the night before was missed"
SCHEDULED = clock_time(3, 0)
WAL_DAG_ID = "pv_backup_wal_shipping"
KILLED_RUN = "killed"
LOOK_S = 3
FEWEST_PROCESSES = 5  # standalone, API server, scheduler, dag processor, triggerer


@dataclass(frozen=True)
class Operated:
    """What an operator did, and what the API and the metrics told of it before Airflow was ended."""

    world: AirflowWorld
    today: date
    states: dict[str, str]
    figures: dict[str, float]
    stream_log: str
    people: People
    components: int
    survivors: list[psutil.Process]


@pytest.fixture(scope="module")
def operated(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with (
        opened(stack, tmp_path_factory.mktemp("scheduler")) as world,
        statsd_listener() as statsd,
        on_call() as people,
    ):
        today = choose_day(datetime.now(UTC), "today")
        world.fill_source(megabytes=2)
        world.env |= statsd.environment | people.environment
        figures: dict[str, float] = {}

        def both_are_over() -> bool:
            figures.update(statsd.gauges())
            return runs_are_over(airflow)

        log = world.folder / "standalone.log"
        with running(world) as airflow:
            until(lambda: airflow.knows(DAG_ID), meaning="the DAG is known", log=log)
            airflow.call("PATCH", f"dags/{DAG_ID}", json={"is_paused": False})
            form = {"logical_date": None, "conf": {"day": day_of_the_form(), "reason": REASON}}
            by_hand = airflow.call("POST", f"dags/{DAG_ID}/dagRuns", json=form)["dag_run_id"]
            until(both_are_over, meaning="both runs are over", log=log)
            components = len(processes_of(world))
            states, stream_log = run_states(airflow), airflow.log_of(DAG_ID, by_hand, "stream_dump")
            fail_then_kill_wal_shipping(world, airflow, people)
            pause_wal_shipping(world, airflow)
        figures |= statsd.gauges()
        yield Operated(world, today, states, figures, stream_log, people, components, processes_of(world))


def fail_then_kill_wal_shipping(world: AirflowWorld, airflow: WholeAirflow, people: People) -> None:
    """Let a run fail, for this source has no WAL directory, and end the process of the next with SIGKILL."""
    log, runs = world.folder / "standalone.log", f"dags/{WAL_DAG_ID}/dagRuns"
    airflow.call("PATCH", f"dags/{WAL_DAG_ID}", json={"is_paused": False})
    until(lambda: people.know("CONFIGURATION"), meaning="a failed run is told", log=log)
    for number in itertools.count(1):
        run_id = f"{KILLED_RUN}-{number}"
        airflow.call("POST", runs, json={"logical_date": None, "dag_run_id": run_id})
        if kill_task(airflow, f"{runs}/{run_id}/taskInstances"):
            break
    until(lambda: people.know("ERR-47-08"), meaning="a killed task is told", log=log)


def pause_wal_shipping(world: AirflowWorld, airflow: WholeAirflow) -> None:
    """So that Airflow is not ended at the moment when the run of the minute begins."""
    airflow.call("PATCH", f"dags/{WAL_DAG_ID}", json={"is_paused": True})
    path = f"dags/{WAL_DAG_ID}/dagRuns/~/taskInstances?state=queued&state=running"
    until(
        lambda: not airflow.call("GET", path)["task_instances"],
        meaning="nothing of WAL shipping is under way",
        log=world.folder / "standalone.log",
    )


def kill_task(airflow: WholeAirflow, tasks: str) -> bool:
    """Kill the process that works at a run's only task, as soon as there is one; False: it was over before.

    Airflow titles the process after the task.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        (task,) = airflow.call("GET", tasks)["task_instances"]
        if task["state"] in ("failed", "success"):
            return False
        assert time.monotonic() < deadline, f"in {PATIENCE_S} s nobody worked at the task, it is {task['state']}"
        looked_until = time.monotonic() + LOOK_S
        while time.monotonic() < looked_until:
            for process in psutil.process_iter(["cmdline"]):
                if " ".join(process.info["cmdline"] or []).strip() == f"airflow worker -- {task['id']}":
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                        return True
            time.sleep(0.02)


def day_of_the_form() -> str:
    """Yesterday; but between midnight and 03:00 in Paris the scheduler's own run is of yesterday."""
    return "today" if datetime.now(PARIS).time() < SCHEDULED else "yesterday"


def run_states(airflow: WholeAirflow) -> dict[str, str]:
    runs = airflow.call("GET", f"dags/{DAG_ID}/dagRuns")["dag_runs"]
    return {run["run_type"]: run["state"] for run in runs}


def runs_are_over(airflow: WholeAirflow) -> bool:
    states = run_states(airflow)
    return set(states) == {"manual", "scheduled"} and set(states.values()) <= {"success", "failed"}


def test_the_nights_run_and_the_run_by_hand_succeed(operated: Operated):
    assert operated.states == {"scheduled": "success", "manual": "success"}


def test_the_scheduler_backs_up_one_day_and_the_form_the_other(operated: Operated):
    rows = operated.world.sql("SELECT day, status FROM pv_backup.backup_executions WHERE type = 'pg_dump' ORDER BY day")

    assert rows == [{"day": day, "status": "SUCCESS"} for day in (operated.today - timedelta(days=1), operated.today)]
    assert {manifest_key(row["day"]) for row in rows} <= set(operated.world.versions())


def test_the_audit_trail_keeps_the_reason_of_the_form(operated: Operated):
    reasons = {event["details"]["reason"] for event in operated.world.audit("run_started")}

    assert reasons == {REASON, "scheduled"}


def test_the_log_in_the_ui_tells_what_was_uploaded(operated: Operated):
    assert "uploaded:" in operated.stream_log


def test_the_tasks_send_their_figures_without_being_asked(operated: Operated):
    promised = {name for name in documented() if ".pg_dump." in name or ".globals." in name}
    promised.add("pv_backup.drill.open_incidents")  # of drills there is none yet, and none open

    assert set(operated.figures) == promised
    newest = operated.world.sql(
        "SELECT size_bytes FROM pv_backup.backup_executions WHERE type = 'pg_dump'"
        " ORDER BY facts->>'exported_at' DESC LIMIT 1"
    )
    assert operated.figures["pv_backup.pg_dump.size_bytes"] == newest[0]["size_bytes"]


@pytest.mark.case("TC-ERR-08")
def test_a_failed_task_tells_for_itself_and_of_a_killed_one_the_run_does(operated: Operated):
    told = {message["code"]: message for message in operated.people.webhook.received}

    assert sorted(operated.people.codes) == ["CONFIGURATION", "ERR-47-08"]
    assert "task ship_wal" in told["ERR-47-08"]["cause"]
    assert f"/runs/{KILLED_RUN}-" in told["ERR-47-08"]["run_url"]
    assert KILLED_RUN not in told["CONFIGURATION"]["run_url"]


@pytest.mark.case("TC-INV-02")
def test_no_secret_is_in_what_the_whole_airflow_wrote(operated: Operated):
    world = operated.world
    database = whole_database(world.metadata_dsn)

    for name, secret in {**secrets_of(world), "path of the webhook": SECRET_PATH.encode()}.items():
        assert files_with(world.folder, secret) == [], name
        assert not found_in(database, secret), name
    task_logs = files_with(world.folder / "airflow" / "logs", b"uploaded:")
    assert any_with([path.read_bytes() for path in task_logs], b"stored in"), "the search must reach the tasks' logs"


def test_airflow_leaves_no_process_behind(operated: Operated):
    assert operated.components >= FEWEST_PROCESSES
    assert operated.survivors == []
