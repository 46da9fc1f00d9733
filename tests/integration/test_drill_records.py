"""What a drill leaves: evidence, an incident, or both at once, and what was recorded first stands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from pv_backup.services.errors import JournalUnavailable
from pv_backup.services.evidence.document import Failure, Verdict
from tests.integration.compliance_world import FAILURE, Drills
from tests.integration.journal_world import opened

pytestmark = pytest.mark.case("TC-INV-09", "TC-ERR-07")

MORE = Failure(code="CORRUPTION", cause="a page is torn", remedy="look further")
NUL = "\N{NULL}"


@pytest.fixture
def drills(journal_db):
    with opened(journal_db) as world:
        yield Drills(world)


def test_a_drill_begins_once_however_often_it_says_so(drills):
    drill_id = str(uuid4())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(drills.begin, [drill_id] * 6))

    (event,) = drills.rows("backup_audit_events")
    assert event["event_type"] == "drill_started"
    assert event["details"] == {
        "drill_id": drill_id,
        "run_id": "drill/run 1",
        "target": "latest",
        "legs": "logical physical",
        "whole": True,
    }


def test_a_drill_that_passed_leaves_evidence_and_no_incident(drills):
    drill_id = drills.begun(ago="1 hour")
    for _ in range(2):
        assert drills.record(drill_id, Verdict.PASSED) is None

    (evidence,) = drills.rows("restoration_evidence")
    assert (evidence["verdict"], evidence["rto_s"], evidence["rpo_s"]) == ("PASSED", 12.5, 0.25)
    assert evidence["document"] == '{"signed": 1}'
    assert drills.compliance.open_incidents() == []


def test_a_drill_that_failed_leaves_both_and_its_first_failure_names_the_incident(drills):
    drill_id = drills.begun(ago="1 hour")
    incident_id = drills.record(drill_id, Verdict.FAILED, FAILURE, MORE)

    (incident,) = drills.compliance.open_incidents()
    assert (incident.incident_id, incident.drill_id) == (incident_id, drill_id)
    assert (incident.code, incident.check) == (FAILURE.code, FAILURE.check)
    assert (incident.cause, incident.next_step) == (FAILURE.cause, FAILURE.remedy)
    assert [row["verdict"] for row in drills.rows("restoration_evidence")] == ["FAILED"]
    assert drills.events() == ["drill_started", "incident_opened"]


@pytest.mark.parametrize(
    ("verdict", "failures", "document"),
    [
        (Verdict.FAILED, [FAILURE], '{"signed": 1}'),
        (Verdict.FAILED, [MORE], '{"signed": 2}'),
        (Verdict.PASSED, [], '{"signed": 2}'),
        (Verdict.FAILED, [MORE], None),
    ],
    ids=["the same", "another failure", "another verdict", "without a document"],
)
def test_what_was_recorded_first_stands(drills, verdict, failures, document):
    drill_id = drills.begun(ago="1 hour")
    first = drills.record(drill_id, Verdict.FAILED, FAILURE)
    tables = ("restoration_evidence", "compliance_incidents", "backup_audit_events")
    before = [drills.rows(table) for table in tables]

    assert drills.record(drill_id, verdict, *failures, document=document) == first
    assert [drills.rows(table) for table in tables] == before


def test_a_second_try_brings_the_document_that_the_first_could_not_sign(drills):
    drill_id = drills.begun(ago="1 hour")
    first = drills.record(drill_id, Verdict.FAILED, FAILURE, document=None)
    assert drills.rows("restoration_evidence") == []

    assert drills.record(drill_id, Verdict.FAILED, FAILURE) == first
    assert [row["verdict"] for row in drills.rows("restoration_evidence")] == ["FAILED"]
    assert len(drills.rows("compliance_incidents")) == 1


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.PASSED, "DRILL-UNPROVEN"), (Verdict.FAILED, "ERR-47-07")])
def test_what_left_no_document_and_no_reason_is_an_incident_all_the_same(drills, verdict, code):
    drill_id = drills.begun(ago="1 hour")
    first = drills.record(drill_id, verdict, document=None)

    assert drills.record(drill_id, verdict, document=None) == first
    (incident,) = drills.compliance.open_incidents()
    assert (incident.incident_id, incident.code, incident.drill_id) == (first, code, drill_id)
    assert incident.next_step


@pytest.mark.parametrize("table", ["restoration_evidence", "compliance_incidents", "backup_audit_events"])
def test_evidence_and_incident_are_there_both_or_neither(drills, table):
    drill_id = str(uuid4())
    drills.world.sql(f"REVOKE INSERT ON pv_backup.{table} FROM pv_backup_service")
    with pytest.raises(JournalUnavailable, match=drill_id):
        drills.record(drill_id, Verdict.FAILED, FAILURE)
    assert drills.rows("restoration_evidence") == []
    assert drills.rows("compliance_incidents") == []

    drills.world.sql(f"GRANT INSERT ON pv_backup.{table} TO pv_backup_service")
    assert drills.record(drill_id, Verdict.FAILED, FAILURE)


def test_two_that_record_the_same_drill_at_once_open_one_incident(drills):
    drill_id = drills.begun(ago="1 hour")
    with ThreadPoolExecutor(4) as pool:
        incidents = set(pool.map(lambda _: drills.record(drill_id, Verdict.FAILED, FAILURE), range(8)))

    assert len(incidents) == 1
    assert len(drills.rows("compliance_incidents")) == len(drills.rows("restoration_evidence")) == 1


def test_whatever_an_error_quotes_fits_the_record(drills):
    ugly = Failure(code="RESTORE", cause=f"a{NUL}b\udcff" + "x" * 10_000, remedy=NUL, check=f"c{NUL}")
    incident = drills.compliance.incident(drills.record(str(uuid4()), Verdict.FAILED, ugly))

    assert incident.cause.startswith("a\N{REPLACEMENT CHARACTER}b")
    assert len(incident.cause) == 4000
