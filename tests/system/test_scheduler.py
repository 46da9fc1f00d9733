"""The DAG under the real scheduler: the night's own run, and one by hand with the UI's form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import psutil
import pytest

from pv_backup.services.days import PARIS, choose_day
from tests.support.documented_metrics import documented
from tests.support.servers import TestStack
from tests.support.statsd import statsd_listener
from tests.system.airflow_world import DAG_ID, AirflowWorld, manifest_key, opened
from tests.system.leaks import any_with, files_with, found_in, secrets_of, whole_database
from tests.system.whole_airflow import WholeAirflow, processes_of, running, until

pytestmark = pytest.mark.case("TC-NOM-01")

REASON = "the night before was missed"
SCHEDULED = time(3, 0)
RUN_PATIENCE_S = 180
FEWEST_PROCESSES = 5  # standalone, API server, scheduler, dag processor, triggerer


@dataclass(frozen=True)
class Operated:
    """What an operator did, and what the API and the metrics told of it before Airflow was ended."""

    world: AirflowWorld
    states: dict[str, str]
    figures: dict[str, float]
    stream_log: str
    components: int
    survivors: list[psutil.Process]


@pytest.fixture(scope="module")
def operated(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with opened(stack, tmp_path_factory.mktemp("scheduler")) as world, statsd_listener() as statsd:
        world.fill_source(megabytes=2)
        world.env |= statsd.environment
        figures: dict[str, float] = {}

        def both_are_over() -> bool:
            figures.update(statsd.gauges())
            return runs_are_over(airflow)

        log = world.folder / "standalone.log"
        with running(world) as airflow:
            until(lambda: airflow.knows(DAG_ID), patience_s=60, meaning="the DAG is known", log=log)
            airflow.call("PATCH", f"dags/{DAG_ID}", json={"is_paused": False})
            form = {"logical_date": None, "conf": {"day": day_of_the_form(), "reason": REASON}}
            by_hand = airflow.call("POST", f"dags/{DAG_ID}/dagRuns", json=form)["dag_run_id"]
            until(both_are_over, patience_s=RUN_PATIENCE_S, meaning="both runs are over", log=log)
            components = len(processes_of(world))
            states, stream_log = run_states(airflow), airflow.log_of(DAG_ID, by_hand, "stream_dump")
        figures |= statsd.gauges()
        yield Operated(world, states, figures, stream_log, components, processes_of(world))


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

    today = choose_day(datetime.now(UTC), "today")
    assert rows == [{"day": day, "status": "SUCCESS"} for day in (today - timedelta(days=1), today)]
    assert {manifest_key(row["day"]) for row in rows} <= set(operated.world.versions())


def test_the_audit_trail_keeps_the_reason_of_the_form(operated: Operated):
    reasons = {event["details"]["reason"] for event in operated.world.audit("run_started")}

    assert reasons == {REASON, "scheduled"}


def test_the_log_in_the_ui_tells_what_was_uploaded(operated: Operated):
    assert "uploaded:" in operated.stream_log


def test_the_tasks_send_their_figures_without_being_asked(operated: Operated):
    promised = {name for name in documented() if ".pg_dump." in name or ".globals." in name}

    assert set(operated.figures) == promised
    newest = operated.world.sql(
        "SELECT size_bytes FROM pv_backup.backup_executions WHERE type = 'pg_dump'"
        " ORDER BY facts->>'exported_at' DESC LIMIT 1"
    )
    assert operated.figures["pv_backup.pg_dump.size_bytes"] == newest[0]["size_bytes"]


@pytest.mark.case("TC-INV-02")
def test_no_secret_is_in_what_the_whole_airflow_wrote(operated: Operated):
    world = operated.world
    database = whole_database(world.metadata_dsn)

    for name, secret in secrets_of(world).items():
        assert files_with(world.folder, secret) == [], name
        assert not found_in(database, secret), name
    task_logs = files_with(world.folder / "airflow" / "logs", b"uploaded:")
    assert any_with([path.read_bytes() for path in task_logs], b"stored in"), "the search must reach the tasks' logs"


def test_airflow_leaves_no_process_behind(operated: Operated):
    assert operated.components >= FEWEST_PROCESSES
    assert operated.survivors == []
