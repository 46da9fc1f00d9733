"""What the journal's tests share: the services on a fresh database, and a superuser who can set any scene."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.database import engine_for
from pv_backup.services.journal import Audit, Journal
from pv_backup.services.leases import Leases
from pv_backup.services.state import Artefact, Attempt, StateMachine

DAY = date(2026, 3, 29)
ARTEFACT = Artefact(
    hash_sha3_256="ab" * 32,
    size_bytes=4711,
    wrapped_dek="vault:v3:d3JhcHBlZA==",
    iv="0a" * 12,
    auth_tag="0b" * 16,
    k_backup_version=3,
)


ERROR = {"error_code": "ERR-47-01", "error_text": "pg_dump was killed"}


@dataclass(frozen=True)
class JournalWorld:
    """The service role's view (sessions and services), and the superuser's connection string."""

    sessions: sessionmaker[Session]
    superuser_dsn: str

    @property
    def machine(self) -> StateMachine:
        return StateMachine(self.sessions)

    @property
    def leases(self) -> Leases:
        return Leases(self.sessions)

    @property
    def journal(self) -> Journal:
        return Journal(self.sessions)

    @property
    def audit(self) -> Audit:
        return Audit(self.sessions)

    def open(self, *, run_id: str = "run 1", cycles: int = 3, lease_s: float = 60) -> Attempt:
        return self.machine.open_day(
            artefact_type=ArtefactType.PG_DUMP,
            day=DAY,
            run_id=run_id,
            lease_s=lease_s,
            max_replanification_cycles=cycles,
        )

    def published(self) -> Attempt:
        """A day that ended well."""
        attempt = self.open()
        self.machine.record_artefact(attempt.lease, ARTEFACT, {})
        self.machine.record_verified(attempt.lease)
        self.machine.succeed(attempt.lease)
        return attempt

    def failed(self, *, cycles: int = 3) -> Attempt:
        """A day whose attempt failed."""
        attempt = self.open(cycles=cycles)
        self.machine.fail(attempt.backup_id, **ERROR)
        return attempt

    def sql(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run a statement as superuser and return its rows."""
        with psycopg.connect(self.superuser_dsn, row_factory=psycopg.rows.dict_row) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def row(self) -> dict[str, Any]:
        """The one row of `backup_executions`."""
        (only,) = self.sql("SELECT * FROM pv_backup.backup_executions")
        return only

    def put_in(self, status: str) -> None:
        self.sql("UPDATE pv_backup.backup_executions SET status = %s", status)

    def expire_lease(self) -> None:
        self.sql("UPDATE pv_backup.backup_executions SET lease_expires_at = clock_timestamp() - interval '1 second'")

    def refusals(self, backup_id: str) -> list[tuple[str, str]]:
        """(from, to) of the refused moves on record; each with its time."""
        events = [event for event in self.audit.events_of(backup_id) if event.event_type == "transition_refused"]
        assert all(event.occurred_at.tzinfo and event.details["reason"] for event in events)
        return [(event.details["from"], event.details["to"]) for event in events]

    @contextmanager
    def row_locked(self):
        """Hold the row's lock, as a worker in the middle of its transaction does."""
        with psycopg.connect(self.superuser_dsn) as connection:
            connection.execute("SELECT 1 FROM pv_backup.backup_executions FOR UPDATE")
            yield

    def wait_for_blocked(self, count: int) -> None:
        """Return once so many sessions of the service role wait for a lock."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            (blocked,) = self.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND usename = 'pv_backup_service' AND wait_event_type = 'Lock'"
            )
            if blocked["count"] >= count:
                return
            time.sleep(0.01)
        raise AssertionError(f"{count} workers should have met at the row's lock")


@contextmanager
def opened(journal_db: Any):
    """The world on the `journal_db` fixture's database, its connections closed at the end."""
    engine = engine_for(journal_db.service_dsn)
    try:
        yield JournalWorld(sessionmaker(engine), journal_db.superuser_dsn)
    finally:
        engine.dispose()
