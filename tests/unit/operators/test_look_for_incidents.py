"""Which incidents people are asked about by a new run: those that no run asks about, whatever was deleted before."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from pv_backup.operators.compliance import LookForIncidentsOperator
from pv_backup.services.incidents import Incident
from tests.dags.dag_world import dag_bag

pytestmark = pytest.mark.case("TC-ERR-07")


class Runs:
    """The runs that Airflow knows; it counts, and names none (its API for tasks has no list)."""

    def __init__(self, incident: Incident, **states: str) -> None:
        self.states = {f"{incident.incident_id}__{name[1:]}": state for name, state in states.items()}
        self.asked = 0

    def count(self, *, dag_id: str, run_ids: list[str], states: list[str] | None = None) -> int:
        assert dag_id == "pv_backup_incident"
        self.asked += 1
        return sum(
            run_id in self.states and self.states[run_id] in (states or [self.states[run_id]]) for run_id in run_ids
        )


@pytest.fixture
def incident():
    return Incident(
        incident_id=str(uuid4()),
        drill_id=None,
        code="DRILL-OVERDUE",
        check=None,
        cause="x",
        next_step="y",
        opened_at=datetime.now(UTC),
    )


def started(incident: Incident, runs: Runs) -> str | None:
    look = cast("LookForIncidentsOperator", dag_bag().dags["pv_backup_compliance"].get_task("look_for_incidents"))
    context: Any = {"ti": SimpleNamespace(get_dr_count=runs.count)}
    run = look._run_to_start(context, incident)
    if run is None:
        return None
    assert run["conf"] == {"incident_id": incident.incident_id}
    return str(run["trigger_run_id"]).removeprefix(f"{incident.incident_id}__")


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, "1"),
        ({"_1": "running"}, None),
        ({"_1": "queued"}, None),
        ({"_1": "failed"}, "2"),
        ({"_1": "success", "_2": "failed"}, "3"),
        ({"_1": "failed", "_2": "running"}, None),
        # Somebody deleted run 1, or all but the last went with Airflow's old records.
        ({"_2": "running"}, None),
        ({"_60": "queued"}, None),
        ({"_2": "failed"}, "1"),
        ({"_1": "failed", "_3": "failed"}, "2"),
        ({f"_{number}": "failed" for number in range(1, 65)}, "65"),
        ({f"_{number}": "failed" for number in range(1, 130)} | {"_130": "running"}, None),
        ({f"_{number}": "failed" for number in range(20, 65)} | {"_65": "running"}, None),
    ],
)
def test_one_run_an_incident_and_only_if_none_lives(incident, states, expected):
    assert started(incident, Runs(incident, **states)) == expected


def test_it_asks_airflow_little(incident):
    runs = Runs(incident, _1="failed", _2="failed")

    assert started(incident, runs) == "3"
    assert runs.asked <= 8
