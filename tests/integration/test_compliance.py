"""Each drill leaves evidence or an incident, and none is more than 90 days off, by the database's own clock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest

from pv_backup.services.adoption import AdoptingStateMachine, Found
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.compliance import Compliance
from pv_backup.services.errors import JournalUnavailable
from pv_backup.services.evidence.document import Failure, Leg, Verdict
from pv_backup.services.journal import JournalEvent
from pv_backup.services.models import Outcome
from tests.integration.journal_world import ARTEFACT, JournalWorld, opened

pytestmark = pytest.mark.case("TC-INV-09", "TC-ERR-07")

BOTH = list(Leg)
PLAN = "Ann triggers the drill on Monday and stays until it is over."
FAILURE = Failure(code="CONTRACT", cause="orders has rows without a customer", remedy="look", check="contract/orders")
MORE = Failure(code="CORRUPTION", cause="a page is torn", remedy="look further")
NUL = "\N{NULL}"


class Drills:
    """The service, and a superuser who makes things older than they are."""

    def __init__(self, world: JournalWorld) -> None:
        self.world = world
        self.compliance = Compliance(world.sessions)

    def begun(self, *, ago: str, legs: list[Leg] = BOTH) -> str:
        drill_id = str(uuid4())
        self.begin(drill_id, legs=legs)
        self._age("backup_audit_events", "occurred_at", ago, "details->>'drill_id'", drill_id)
        return drill_id

    def begin(self, drill_id: str, *, legs: list[Leg] = BOTH) -> None:
        self.compliance.begin(drill_id=drill_id, run_id="drill/run 1", target="latest", legs=legs)

    def record(
        self, drill_id: str, verdict: Verdict, *failures: Failure, document: str | None = '{"signed": 1}'
    ) -> str | None:
        return self.compliance.record(
            drill_id=drill_id, verdict=verdict, document=document, rto_s=12.5, rpo_s=0.25, failures=failures
        ).incident_id

    def passed(self, *, ago: str, legs: list[Leg] = BOTH) -> str:
        drill_id = self.begun(ago=ago, legs=legs)
        assert self.record(drill_id, Verdict.PASSED) is None
        self._age("restoration_evidence", "recorded_at", ago, "drill_id::text", drill_id)
        return drill_id

    def failed(self, *, ago: str, document: str | None = None) -> str:
        drill_id = self.begun(ago=ago)
        incident = self.record(drill_id, Verdict.FAILED, FAILURE, document=document)
        self._age("compliance_incidents", "opened_at", ago, "incident_id::text", incident)
        return drill_id

    def backed_up(self, *, ago: str, artefact_type: ArtefactType = ArtefactType.PG_DUMP) -> None:
        backup_id = str(uuid4())
        day = None if artefact_type is ArtefactType.WAL else self.world.sql("SELECT current_date AS day")[0]["day"]
        key = {
            ArtefactType.PG_DUMP: "2026/03/backup_20260329.enc",
            ArtefactType.GLOBALS: "2026/03/globals_20260329.enc",
            ArtefactType.WAL: "wal/000000010000000000000001.enc",
        }[artefact_type]
        self.world.journal.record(
            JournalEvent(
                backup_id=backup_id,
                artefact_type=artefact_type,
                day=day,
                outcome=Outcome.SUCCESS,
                object_key=key,
                hash_sha3_256="ab" * 32,
                size_bytes=1,
                k_backup_version=1,
            )
        )
        self._age("backup_journal_events", "occurred_at", ago, "backup_id::text", backup_id)

    def closed(self, incident: str, *, ago: str) -> None:
        if self.compliance.incident(incident).is_open:
            self.compliance.close(incident, action_plan=PLAN, closed_by="ann")
        self._age("compliance_incidents", "closed_at", ago, "incident_id::text", incident)

    def looked(self) -> list[tuple[str, str | None]]:
        """(code, drill) of each incident that a look opens."""
        return [(incident.code, incident.drill_id) for incident in self.compliance.look()]

    def rows(self, table: str) -> list[dict[str, object]]:
        return self.world.sql(f"SELECT * FROM pv_backup.{table} ORDER BY id")

    def events(self) -> list[str]:
        return [str(event["event_type"]) for event in self.rows("backup_audit_events")]

    def _age(self, table: str, column: str, ago: str, key: str, value: str | None) -> None:
        """Past the guards, which let nobody date a record."""
        statement = f"UPDATE pv_backup.{table} SET {column} = clock_timestamp() - %s::interval WHERE {key} = %s"
        guards = self.world.sql(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", f"pv_backup.{table}"
        )
        for guard in guards:
            self.world.sql(f"ALTER TABLE pv_backup.{table} DISABLE TRIGGER {guard['tgname']}")
        self.world.sql(statement, ago, value)
        for guard in guards:
            self.world.sql(f"ALTER TABLE pv_backup.{table} ENABLE ALWAYS TRIGGER {guard['tgname']}")


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
