"""No drill is more than 90 days off, and none leaves nothing, without an incident; by the database's own clock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest

from pv_backup.services.adoption import AdoptingStateMachine, Found
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import JournalUnavailable
from pv_backup.services.evidence.document import Leg, Verdict
from tests.integration.compliance_world import BOTH, FAILURE, Drills
from tests.integration.journal_world import ARTEFACT, opened

pytestmark = pytest.mark.case("TC-INV-09", "TC-ERR-07")


@pytest.fixture
def drills(journal_db):
    with opened(journal_db) as world:
        yield Drills(world)


def test_where_nothing_was_backed_up_nothing_is_overdue(drills):
    drills.backed_up(ago="200 days", artefact_type=ArtefactType.WAL)
    drills.backed_up(ago="200 days", artefact_type=ArtefactType.GLOBALS)

    assert drills.looked() == []


@pytest.mark.parametrize(("ago", "expected"), [("89 days 23 hours", []), ("90 days 1 hour", [("DRILL-OVERDUE", None)])])
def test_a_fresh_installation_counts_from_its_first_backup(drills, ago, expected):
    drills.backed_up(ago=ago)
    drills.backed_up(ago="1 day")

    assert drills.looked() == expected
    assert drills.looked() == []


def test_a_journal_that_was_rebuilt_counts_from_the_oldest_backup_that_it_knows(drills):
    (today,) = (row["now"] for row in drills.world.sql("SELECT now()"))
    published = [today - timedelta(days=days) for days in (1, 95)]
    for finished in published:
        found = Found(
            backup_id=str(uuid4()),
            artefact_type=ArtefactType.PG_DUMP,
            day=finished.date(),
            artefact=ARTEFACT,
            facts={},
            began=finished - timedelta(minutes=5),
            finished=finished,
        )
        assert AdoptingStateMachine(drills.world.sessions).adopt(found, by="ann")
    assert all(row["occurred_at"] >= today for row in drills.rows("backup_journal_events"))

    (incident,) = drills.compliance.look()
    assert f"there are backups since {published[1]:%Y-%m-%d}" in incident.cause


@pytest.mark.parametrize(("ago", "expected"), [("89 days 23 hours", []), ("90 days 1 hour", [("DRILL-OVERDUE", None)])])
@pytest.mark.parametrize("ended", ["passed", "failed"])
def test_ninety_days_after_a_drill_the_next_is_overdue(drills, ago, expected, ended):
    drills.backed_up(ago="400 days")
    drills.passed(ago="200 days")
    getattr(drills, ended)(ago=ago)

    assert drills.looked() == expected
    assert drills.looked() == []


def test_it_says_since_when_and_what_to_do(drills):
    drills.passed(ago="100 days")
    (incident,) = drills.compliance.look()

    assert "100 days ago; 90 are allowed (INV-47-09)" in incident.cause
    assert "pv_backup_restoration_drill" in incident.next_step
    assert [open_one.incident_id for open_one in drills.compliance.open_incidents()] == [incident.incident_id]


@pytest.mark.parametrize("leg", Leg)
def test_a_drill_of_one_leg_proves_half_and_does_not_count(drills, leg):
    drills.passed(ago="100 days")
    drills.passed(ago="1 day", legs=[leg])

    assert drills.looked() == [("DRILL-OVERDUE", None)]


def test_a_drill_under_way_is_not_overdue(drills):
    drills.passed(ago="91 days")
    drills.begun(ago="2 hours")

    assert drills.looked() == []


@pytest.mark.parametrize("legs", [BOTH, [Leg.LOGICAL]])
def test_a_drill_that_left_nothing_within_two_days_is_unproven(drills, legs):
    drills.passed(ago="10 days")
    drill_id = drills.begun(ago="48 hours 1 minute", legs=legs)
    drills.begun(ago="47 hours 59 minutes")

    assert drills.looked() == [("DRILL-UNPROVEN", drill_id)]
    assert drills.looked() == []
    (incident,) = drills.compliance.open_incidents()
    assert drill_id in incident.cause
    assert "drill/run 1" in incident.cause


def test_a_drill_that_ended_is_not_unproven(drills):
    drills.passed(ago="5 days")
    drills.failed(ago="5 days", document='{"signed": 1}')
    drills.failed(ago="5 days")

    assert drills.looked() == []


def test_a_drill_that_was_called_unproven_too_early_leaves_what_it_must(drills):
    passed, failed = drills.begun(ago="49 hours"), drills.begun(ago="49 hours")
    assert len(drills.looked()) == 2

    assert drills.record(passed, Verdict.PASSED) is None
    late = drills.compliance.incident(drills.record(failed, Verdict.FAILED, FAILURE))
    assert (late.code, late.drill_id) == (FAILURE.code, failed)
    assert [row["verdict"] for row in drills.rows("restoration_evidence")] == ["PASSED", "FAILED"]
    assert len(drills.compliance.open_incidents()) == 3


def test_what_is_unproven_is_not_overdue_as_well(drills):
    drills.passed(ago="100 days")
    drill_id = drills.begun(ago="3 days")

    assert drills.looked() == [("DRILL-UNPROVEN", drill_id)]


def test_a_plan_is_no_drill(drills):
    drills.passed(ago="100 days")
    (overdue,) = drills.compliance.look()
    drills.closed(overdue.incident_id, ago="6 days 23 hours")
    assert drills.looked() == []

    drills.closed(overdue.incident_id, ago="7 days 1 hour")
    assert drills.looked() == [("DRILL-OVERDUE", None)]
    assert drills.looked() == []


def test_a_drill_after_the_plan_ends_it(drills):
    drills.passed(ago="100 days")
    (overdue,) = drills.compliance.look()
    drills.closed(overdue.incident_id, ago="8 days")
    drills.passed(ago="7 days")

    assert drills.looked() == []


def test_two_that_look_at_once_open_one_incident(drills):
    drills.passed(ago="100 days")
    with ThreadPoolExecutor(4) as pool:
        found = [incident for look in pool.map(lambda _: drills.compliance.look(), range(8)) for incident in look]

    assert len(found) == len(drills.compliance.open_incidents()) == 1


def test_a_journal_that_is_down_says_so(drills, stack):
    stack.postgres.stop()
    for call in (drills.compliance.look, drills.compliance.open_incidents, lambda: drills.begin(str(uuid4()))):
        with pytest.raises(JournalUnavailable):
            call()
