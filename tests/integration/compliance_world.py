"""What the tests of compliance share: drills on a real journal, which happened however long ago a test wants."""

from __future__ import annotations

from uuid import uuid4

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.compliance import Compliance
from pv_backup.services.evidence.document import Failure, Leg, Verdict
from pv_backup.services.journal import JournalEvent
from pv_backup.services.models import Outcome
from tests.integration.journal_world import JournalWorld

BOTH = list(Leg)
PLAN = "Ann triggers the drill on Monday and stays until it is over."
FAILURE = Failure(code="CONTRACT", cause="orders has rows without a customer", remedy="look", check="contract/orders")


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
