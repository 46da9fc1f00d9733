"""The tables of the journal database (SPEC section 4), as the code sees them.

What an ORM can't say (grants, row-level security, append-only triggers) stands in ``include/sql/``. Identifiers and
hashes are text in Python; every time is the database's clock, since workers' clocks differ.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    Float,
    Identity,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pv_backup.services.artefacts import ArtefactType

SCHEMA = "pv_backup"

# Plain values of a fact or of an audit detail: flat, so that a person can read a row and SQL can search it.
JsonValue = str | int | float | bool | None


class BackupStatus(StrEnum):
    """The states of CC-47-02; ``FAILED_FORMAT`` is a rejection code of validation and never a state."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    DELETED = "DELETED"


#: The states of a day that has its backup: it succeeded, and time does the rest.
CLOSED: Final = (BackupStatus.SUCCESS, BackupStatus.EXPIRED, BackupStatus.DELETED)


class Outcome(StrEnum):
    """How an attempt ended; the journal knows nothing in between."""

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


def _one_of(column: str, values: type[StrEnum] | tuple[StrEnum, ...]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class Base(DeclarativeBase):
    """Names every constraint by rule, so that migrations and error messages can name them too."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        },
    )


class BackupExecution(Base):
    """One day's artefact of one type, and the attempt that stands for it now.

    ``backup_id`` names the current attempt and changes with FAILED → SCHEDULED; ``id`` never changes. Only
    ``state.py`` writes ``status`` (INV-47-07). ``size_bytes`` is that of the S3 object; ``iv`` and ``auth_tag`` are
    those of the PVB1 header, in hex as in the S3 metadata; ``verified_auth_tag`` is that of the object which was
    read back (INV-47-04). WAL files have no row here.
    """

    __tablename__ = "backup_executions"
    __table_args__ = (
        UniqueConstraint("type", "day"),
        CheckConstraint(
            _one_of("type", (ArtefactType.PG_DUMP, ArtefactType.GLOBALS, ArtefactType.BASEBACKUP)), name="type"
        ),
        CheckConstraint(_one_of("status", BackupStatus), name="status"),
        CheckConstraint("replanification_count >= 0", name="replanification_count"),
        CheckConstraint("hash_sha3_256 ~ '^[0-9a-f]{64}$'", name="hash_sha3_256"),
        CheckConstraint("size_bytes BETWEEN 1 AND 9007199254740991", name="size_bytes"),
        CheckConstraint("iv ~ '^[0-9a-f]{24}$'", name="iv"),
        CheckConstraint("auth_tag ~ '^[0-9a-f]{32}$'", name="auth_tag"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    backup_id: Mapped[str] = mapped_column(Uuid(as_uuid=False), unique=True)
    type: Mapped[str] = mapped_column(Text)
    day: Mapped[date] = mapped_column(Date)
    status: Mapped[str] = mapped_column(Text, server_default=BackupStatus.SCHEDULED)
    replanification_count: Mapped[int] = mapped_column(Integer, server_default="0")
    run_id: Mapped[str | None] = mapped_column(Text)
    object_key: Mapped[str] = mapped_column(Text)
    hash_sha3_256: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    wrapped_dek: Mapped[str | None] = mapped_column(Text)
    iv: Mapped[str | None] = mapped_column(Text)
    auth_tag: Mapped[str | None] = mapped_column(Text)
    verified_auth_tag: Mapped[str | None] = mapped_column(Text)
    k_backup_version: Mapped[int | None] = mapped_column(Integer)
    facts: Mapped[dict[str, object] | None] = mapped_column(JSONB(none_as_null=True))
    lease_token: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))
    lease_expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    scheduled_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    error_code: Mapped[str | None] = mapped_column(Text)
    error_text: Mapped[str | None] = mapped_column(Text)


class BackupJournalEvent(Base):
    """The outcome of one attempt, for good: append-only, the first one written for a backup_id stands (INV-47-05).

    ``day`` is null for WAL files only, which belong to no day.
    """

    __tablename__ = "backup_journal_events"
    __table_args__ = (
        CheckConstraint(_one_of("type", ArtefactType), name="type"),
        CheckConstraint(_one_of("outcome", Outcome), name="outcome"),
        CheckConstraint("(day IS NULL) = (type = 'wal')", name="day"),
        CheckConstraint("hash_sha3_256 ~ '^[0-9a-f]{64}$'", name="hash_sha3_256"),
        CheckConstraint("size_bytes BETWEEN 1 AND 9007199254740991", name="size_bytes"),
        CheckConstraint(
            "outcome <> 'SUCCESS' OR (hash_sha3_256 IS NOT NULL AND size_bytes IS NOT NULL"
            " AND k_backup_version IS NOT NULL AND error_code IS NULL)",
            name="success_is_complete",
        ),
        CheckConstraint("outcome <> 'FAILED' OR error_code IS NOT NULL", name="failure_has_code"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    backup_id: Mapped[str] = mapped_column(Uuid(as_uuid=False), unique=True)
    type: Mapped[str] = mapped_column(Text)
    day: Mapped[date | None] = mapped_column(Date)
    outcome: Mapped[str] = mapped_column(Text)
    object_key: Mapped[str] = mapped_column(Text)
    hash_sha3_256: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    k_backup_version: Mapped[int | None] = mapped_column(Integer)
    error_code: Mapped[str | None] = mapped_column(Text)
    error_text: Mapped[str | None] = mapped_column(Text)
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class BackupAuditEvent(Base):
    """What the journal can't hold, since it has one row a backup: refused moves, settlements, alerts. Append-only."""

    __tablename__ = "backup_audit_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    # Indexed, not unique, and no foreign key: an old attempt's id outlives its place in backup_executions.
    backup_id: Mapped[str | None] = mapped_column(Uuid(as_uuid=False), index=True)
    event_type: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, JsonValue]] = mapped_column(JSONB)
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class RestorationEvidence(Base):
    """The lasting copy of a drill's signed document: the bucket's copy lives 30 days (SPEC F4.4). Append-only.

    ``document`` is text and not JSONB: a signature covers exact bytes, and JSONB would reorder them. RTO and RPO are
    the measured ones, in seconds.
    """

    __tablename__ = "restoration_evidence"
    __table_args__ = (CheckConstraint("verdict IN ('PASSED', 'FAILED')", name="verdict"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    drill_id: Mapped[str] = mapped_column(Uuid(as_uuid=False), unique=True)
    verdict: Mapped[str] = mapped_column(Text)
    rto_s: Mapped[float | None] = mapped_column(Float(53))
    rpo_s: Mapped[float | None] = mapped_column(Float(53))
    document: Mapped[str] = mapped_column(Text)
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class ComplianceIncident(Base):
    """A drill that failed or is missing, until someone says what will be done about it: no closing without a plan.

    ``drill_id`` is null where no drill began, and refers to no row: a drill whose document could not be signed has an
    incident and no evidence. ``code`` is that of the error, ``reason`` its cause.
    """

    __tablename__ = "compliance_incidents"
    __table_args__ = (
        UniqueConstraint("drill_id", "code"),
        CheckConstraint("code ~ '^[A-Z][A-Z0-9_-]*$'", name="code"),
        CheckConstraint(
            "closed_at IS NULL OR (coalesce(action_plan, '') ~ '\\S' AND coalesce(closed_by, '') ~ '\\S')",
            name="closed_with_action_plan",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    incident_id: Mapped[str] = mapped_column(Uuid(as_uuid=False), unique=True)
    drill_id: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))
    reason: Mapped[str] = mapped_column(Text)
    opened_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    action_plan: Mapped[str | None] = mapped_column(Text)
    closed_by: Mapped[str | None] = mapped_column(Text)
    closed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    code: Mapped[str] = mapped_column(Text)
    failed_check: Mapped[str | None] = mapped_column(Text)
    next_step: Mapped[str | None] = mapped_column(Text)
