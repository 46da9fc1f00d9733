"""What the tests of incidents share: a journal for a whole module, and incidents to close."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from dev.provisioning.databases import drop_database
from pv_backup.services.compliance import Compliance
from pv_backup.services.evidence.document import Failure, Verdict
from tests.integration.journal_world import JournalWorld
from tests.support.servers import JournalDatabase, TestStack

PLAN = "Ann replaces the disk of worker 2 by Friday."
TABLE = "pv_backup.compliance_incidents"
FAILURE = Failure(
    code="ERR-47-04", cause="the dump's hash differs", remedy="find out who wrote to the bucket", check="sha3_256"
)


@contextmanager
def journal_for_all(stack: TestStack) -> Iterator[JournalDatabase]:
    """One for all tests of a module: each has an incident of its own."""
    journal = stack.new_journal()
    try:
        yield journal
    finally:
        drop_database(stack.postgres, journal.superuser_dsn.rpartition("/")[2])


def opened_incident(compliance: Compliance) -> str | None:
    """The id of a new one, of a drill that failed."""
    return compliance.record(
        drill_id=str(uuid4()), verdict=Verdict.FAILED, document=None, rto_s=None, rpo_s=None, failures=[FAILURE]
    ).incident_id


def events_of(world: JournalWorld, incident: str) -> list[dict[str, Any]]:
    return world.sql(
        "SELECT event_type, details FROM pv_backup.backup_audit_events WHERE details->>'incident_id' = %s ORDER BY id",
        incident,
    )
