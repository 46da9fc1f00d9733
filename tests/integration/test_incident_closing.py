"""The service closes an incident once, by a name and with an action plan, and says so in the audit (SPEC F4.5)."""

from __future__ import annotations

from uuid import uuid4

import pytest

from pv_backup.services.compliance import Compliance
from pv_backup.services.drill_errors import PlanMissing
from pv_backup.services.errors import FormatRejected, JournalUnavailable, RefusedError
from pv_backup.services.incidents import PLAN_MAX, PLAN_MIN
from tests.integration.incident_world import PLAN, TABLE, events_of, journal_for_all, opened_incident
from tests.integration.journal_world import opened

pytestmark = pytest.mark.case("TC-ERR-07")


@pytest.fixture(scope="module")
def world(stack):
    with journal_for_all(stack) as journal, opened(journal) as world:
        yield world


@pytest.fixture
def compliance(world):
    return Compliance(world.sessions)


@pytest.fixture
def incident(compliance):
    return opened_incident(compliance)


def test_closed_with_a_plan_and_a_name_and_audited(world, compliance, incident):
    compliance.close(incident, action_plan=f"  {PLAN}\n", closed_by=" ann ")
    closed = compliance.incident(incident)
    assert (closed.action_plan, closed.closed_by, closed.is_open) == (PLAN, "ann", False)
    assert incident not in [open_one.incident_id for open_one in compliance.open_incidents()]
    events = events_of(world, incident)
    assert [event["event_type"] for event in events] == ["incident_opened", "incident_closed"]
    assert events[1]["details"] == {"incident_id": incident, "action_plan": PLAN, "closed_by": "ann"}


def test_a_lost_answer_may_be_said_again_and_another_may_not(world, compliance, incident):
    compliance.close(incident, action_plan=PLAN, closed_by="ann")
    compliance.close(incident, action_plan=PLAN, closed_by="ann")
    for plan, name in (("Bob replaces the whole worker instead.", "ann"), (PLAN, "bob")):
        with pytest.raises(RefusedError, match="was closed by ann"):
            compliance.close(incident, action_plan=plan, closed_by=name)
    assert [event["event_type"] for event in events_of(world, incident)] == ["incident_opened", "incident_closed"]


NO_PLANS = [
    None,
    "",
    " \n\t ",
    "\u200b" * 40,
    "\0" * 40,
    "ok",
    "." * 40,
    "todo " * 3,
    "x" * (PLAN_MIN - 1),
    "word " * PLAN_MAX,
    "\u2800\u3164\u115f\u1160\uffa0" * 8,
]


@pytest.mark.parametrize("plan", NO_PLANS, ids=lambda plan: repr(plan)[:12])
def test_the_service_asks_for_a_plan_that_says_something(world, compliance, incident, plan):
    with pytest.raises(PlanMissing) as refused:
        compliance.close(incident, action_plan=plan, closed_by="ann")
    assert refused.value.remedy
    assert compliance.incident(incident).is_open
    assert len(events_of(world, incident)) == 1


@pytest.mark.parametrize("name", [None, "", " ", "\u200b", "\u3164"])
def test_the_service_asks_for_a_name(compliance, incident, name):
    with pytest.raises(PlanMissing, match="name"):
        compliance.close(incident, action_plan=PLAN, closed_by=name)
    assert compliance.incident(incident).is_open


def test_one_of_no_such_name_is_refused_by_name(compliance, incident):
    nobody = str(uuid4())
    for call in (compliance.incident, lambda it: compliance.close(it, action_plan=PLAN, closed_by="ann")):
        with pytest.raises(RefusedError, match=nobody):
            call(nobody)
        for wrong in ("", "x'; DROP TABLE", incident.upper(), None):
            with pytest.raises(FormatRejected, match="incident_id"):
                call(wrong)


def test_a_closing_that_the_database_refuses_is_an_error_of_ours(world, compliance, incident):
    world.sql(f"REVOKE UPDATE (action_plan) ON {TABLE} FROM pv_backup_service")
    try:
        with pytest.raises(JournalUnavailable, match="closing incident"):
            compliance.close(incident, action_plan=PLAN, closed_by="ann")
    finally:
        world.sql(f"GRANT UPDATE (action_plan) ON {TABLE} TO pv_backup_service")
    assert compliance.incident(incident).is_open


def test_an_answer_without_a_plan_is_on_record_and_changes_nothing(world, compliance, incident):
    before = compliance.incident(incident)
    compliance.refuse_plan(incident, action_plan="\0 ", said_by="ann", reason="there is no action plan")

    assert compliance.incident(incident) == before
    (_, refused) = events_of(world, incident)
    assert refused["event_type"] == "plan_refused"
    assert refused["details"]["said_by"] == "ann"
