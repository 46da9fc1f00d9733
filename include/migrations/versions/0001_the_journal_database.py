"""The journal database: its five tables, then the guards that an ORM can't say.

Revision: 0001, the first.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

GUARDS = Path(__file__).parents[2] / "sql" / revision
RECORDS = ("backup_journal_events", "backup_audit_events", "restoration_evidence", "compliance_incidents")


def upgrade() -> None:
    op.create_table(
        "backup_audit_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("backup_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "occurred_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("backup_audit_events_pkey")),
        schema="pv_backup",
    )
    op.create_index(
        op.f("backup_audit_events_backup_id_idx"),
        "backup_audit_events",
        ["backup_id"],
        unique=False,
        schema="pv_backup",
    )
    op.create_table(
        "backup_executions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("backup_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("status", sa.Text(), server_default="SCHEDULED", nullable=False),
        sa.Column("replanification_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("hash_sha3_256", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("wrapped_dek", sa.Text(), nullable=True),
        sa.Column("iv", sa.Text(), nullable=True),
        sa.Column("auth_tag", sa.Text(), nullable=True),
        sa.Column("verified_auth_tag", sa.Text(), nullable=True),
        sa.Column("k_backup_version", sa.Integer(), nullable=True),
        sa.Column("facts", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("lease_token", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "scheduled_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_text", sa.Text(), nullable=True),
        sa.CheckConstraint("hash_sha3_256 ~ '^[0-9a-f]{64}$'", name=op.f("backup_executions_hash_sha3_256_check")),
        sa.CheckConstraint(
            "status IN ('SCHEDULED', 'RUNNING', 'SUCCESS', 'FAILED', 'EXPIRED', 'DELETED')",
            name=op.f("backup_executions_status_check"),
        ),
        sa.CheckConstraint("type IN ('pg_dump', 'globals', 'basebackup')", name=op.f("backup_executions_type_check")),
        sa.CheckConstraint("replanification_count >= 0", name=op.f("backup_executions_replanification_count_check")),
        sa.CheckConstraint(
            "size_bytes BETWEEN 1 AND 9007199254740991", name=op.f("backup_executions_size_bytes_check")
        ),
        sa.CheckConstraint("iv ~ '^[0-9a-f]{24}$'", name=op.f("backup_executions_iv_check")),
        sa.CheckConstraint("auth_tag ~ '^[0-9a-f]{32}$'", name=op.f("backup_executions_auth_tag_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("backup_executions_pkey")),
        sa.UniqueConstraint("backup_id", name=op.f("backup_executions_backup_id_key")),
        sa.UniqueConstraint("type", "day", name=op.f("backup_executions_type_day_key")),
        schema="pv_backup",
    )
    op.create_table(
        "backup_journal_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("backup_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("hash_sha3_256", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("k_backup_version", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_text", sa.Text(), nullable=True),
        sa.Column(
            "occurred_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("(day IS NULL) = (type = 'wal')", name=op.f("backup_journal_events_day_check")),
        sa.CheckConstraint("hash_sha3_256 ~ '^[0-9a-f]{64}$'", name=op.f("backup_journal_events_hash_sha3_256_check")),
        sa.CheckConstraint(
            "outcome <> 'FAILED' OR error_code IS NOT NULL", name=op.f("backup_journal_events_failure_has_code_check")
        ),
        sa.CheckConstraint(
            "outcome <> 'SUCCESS' OR (hash_sha3_256 IS NOT NULL AND size_bytes IS NOT NULL"
            " AND k_backup_version IS NOT NULL AND error_code IS NULL)",
            name=op.f("backup_journal_events_success_is_complete_check"),
        ),
        sa.CheckConstraint("outcome IN ('SUCCESS', 'FAILED')", name=op.f("backup_journal_events_outcome_check")),
        sa.CheckConstraint(
            "type IN ('pg_dump', 'globals', 'basebackup', 'wal')", name=op.f("backup_journal_events_type_check")
        ),
        sa.CheckConstraint(
            "size_bytes BETWEEN 1 AND 9007199254740991", name=op.f("backup_journal_events_size_bytes_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("backup_journal_events_pkey")),
        sa.UniqueConstraint("backup_id", name=op.f("backup_journal_events_backup_id_key")),
        schema="pv_backup",
    )
    op.create_table(
        "restoration_evidence",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("drill_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("rto_s", sa.Float(precision=53), nullable=True),
        sa.Column("rpo_s", sa.Float(precision=53), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("verdict IN ('PASSED', 'FAILED')", name=op.f("restoration_evidence_verdict_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("restoration_evidence_pkey")),
        sa.UniqueConstraint("drill_id", name=op.f("restoration_evidence_drill_id_key")),
        schema="pv_backup",
    )
    op.create_table(
        "compliance_incidents",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("incident_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("drill_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("action_plan", sa.Text(), nullable=True),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "closed_at IS NULL OR (coalesce(action_plan, '') ~ '\\S' AND coalesce(closed_by, '') ~ '\\S')",
            name=op.f("compliance_incidents_closed_with_action_plan_check"),
        ),
        sa.ForeignKeyConstraint(
            ["drill_id"], ["pv_backup.restoration_evidence.drill_id"], name=op.f("compliance_incidents_drill_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("compliance_incidents_pkey")),
        sa.UniqueConstraint("incident_id", name=op.f("compliance_incidents_incident_id_key")),
        schema="pv_backup",
    )
    for guard in ("append_only.sql", "incidents.sql", "grants.sql"):
        # no_parameters: psycopg then sends the whole file as it is, percent signs and several statements included.
        op.get_bind().exec_driver_sql(
            (GUARDS / guard).read_text(encoding="utf-8"), execution_options={"no_parameters": True}
        )


def downgrade() -> None:
    _refuse_to_drop_a_record()
    op.drop_table("compliance_incidents", schema="pv_backup")
    op.drop_table("restoration_evidence", schema="pv_backup")
    op.drop_table("backup_journal_events", schema="pv_backup")
    op.drop_table("backup_executions", schema="pv_backup")
    op.drop_index(op.f("backup_audit_events_backup_id_idx"), table_name="backup_audit_events", schema="pv_backup")
    op.drop_table("backup_audit_events", schema="pv_backup")
    op.execute("DROP FUNCTION pv_backup.refuse_change()")
    op.execute("DROP FUNCTION pv_backup.guard_incident()")


def _refuse_to_drop_a_record() -> None:
    """What is append-only must not fall by a migration either (SPEC section 4)."""
    for table in RECORDS:
        # The lock first: a worker could add a row between the question and the DROP.
        op.execute(f"LOCK TABLE pv_backup.{table} IN ACCESS EXCLUSIVE MODE")
        rows = op.get_bind().scalar(sa.text(f"SELECT count(*) FROM pv_backup.{table}"))  # noqa: S608 - names above
        if rows:
            raise CommandError(
                f"downgrade refused, nothing was changed: pv_backup.{table} holds {rows} rows of the record, "
                "which is append-only (INV-47-05); keep this database and start a new one if you must"
            )
