"""The daily look's own task on a real journal: what it says when more incidents are open than anybody can be asked."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

import pytest

from pv_backup.operators import compliance as operators
from pv_backup.services.compliance import Compliance
from pv_backup.services.evidence.document import Failure, Verdict
from tests.dags.dag_world import dag_bag
from tests.integration.journal_world import opened
from tests.integration.worker import become_worker, context_of
from tests.support.webhook import Endpoint

pytestmark = pytest.mark.case("TC-ERR-07")

FAILURE = Failure(code="CONTRACT", cause="orders has rows without a customer", remedy="look")
PLAN = "Ann restores the missing customers by Friday."
INCIDENT = "pv_backup_incident"


@pytest.fixture
def compliance(stack, journal_db, monkeypatch):
    become_worker(monkeypatch, stack, journal_dsn=journal_db.service_dsn, bucket="none")
    with opened(journal_db) as world:
        yield Compliance(world.sessions)


def look() -> list[str]:
    """The runs to start, by a task that finds none there yet."""
    task = dag_bag().dags["pv_backup_compliance"].get_task("look_for_incidents")
    context = context_of(task)
    context["ti"].get_dr_count = lambda **_: 0
    context["ti"].get_dag = lambda dag_id: SimpleNamespace(is_paused=dag_id != INCIDENT)
    return [run["trigger_run_id"] for run in task.execute(context)]


def test_who_waits_behind_the_most_that_are_asked_is_told_once_until_it_is_over(
    compliance: Compliance, phone: Endpoint, monkeypatch: pytest.MonkeyPatch
):
    dag_bag()  # before its file reads the number, and keeps it for other tests
    monkeypatch.setattr(operators, "MOST_AT_ONCE", 2)
    for _ in range(5):
        compliance.record(
            drill_id=str(uuid4()), verdict=Verdict.FAILED, document=None, rto_s=None, rpo_s=None, failures=[FAILURE]
        )
    incidents = [incident.incident_id for incident in compliance.open_incidents()]

    # All are started, so that the next is asked as soon as one is answered.
    assert look() == look() == [f"{incident}__1" for incident in incidents]
    (told,) = phone.received
    assert told["cause"] == "3 more incidents are open than people can be asked about at once, which is 2"
    assert INCIDENT in told["next_step"]

    for incident in incidents[:3]:
        compliance.close(incident, action_plan=PLAN, closed_by="ann")
    assert len(look()) == 2
    assert len(phone.received) == 1

    compliance.record(
        drill_id=str(uuid4()), verdict=Verdict.FAILED, document=None, rto_s=None, rpo_s=None, failures=[FAILURE]
    )
    look()
    assert [told["cause"].split()[0] for told in phone.received] == ["3", "1"]


def test_the_dag_asks_as_many_at_once_as_the_look_believes():
    assert dag_bag().dags[INCIDENT].max_active_runs == operators.MOST_AT_ONCE
    assert dag_bag().dags[INCIDENT].max_active_tasks == operators.MOST_AT_ONCE
