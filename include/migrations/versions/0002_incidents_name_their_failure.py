"""An incident says by which error and which check it came, and what to do; and it can be of a drill without evidence.

The foreign key to the evidence goes: a drill whose document could not be signed has an incident and nothing else.

Revision: 0002, after 0001.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

GUARDS = Path(__file__).parents[2] / "sql"
TABLE = "compliance_incidents"
SCHEMA = "pv_backup"


def upgrade() -> None:
    # A default for rows of before, which were of failed drills; new ones must say it.
    op.add_column(TABLE, sa.Column("code", sa.Text(), server_default="ERR-47-07", nullable=False), schema=SCHEMA)
    op.alter_column(TABLE, "code", server_default=None, schema=SCHEMA)
    op.add_column(TABLE, sa.Column("failed_check", sa.Text(), nullable=True), schema=SCHEMA)
    op.add_column(TABLE, sa.Column("next_step", sa.Text(), nullable=True), schema=SCHEMA)
    op.create_check_constraint(
        op.f("compliance_incidents_code_check"), TABLE, "code ~ '^[A-Z][A-Z0-9_-]*$'", schema=SCHEMA
    )
    op.drop_constraint(op.f("compliance_incidents_drill_id_fkey"), TABLE, schema=SCHEMA, type_="foreignkey")
    op.create_unique_constraint(
        op.f("compliance_incidents_drill_id_code_key"), TABLE, ["drill_id", "code"], schema=SCHEMA
    )
    _run("0002/incidents.sql")


def downgrade() -> None:
    # The lock first: a worker could add a row between the question and the DROP.
    op.execute("LOCK TABLE pv_backup.compliance_incidents IN ACCESS EXCLUSIVE MODE")
    rows = op.get_bind().scalar(sa.text("SELECT count(*) FROM pv_backup.compliance_incidents"))
    if rows:
        raise CommandError(
            f"downgrade refused, nothing was changed: pv_backup.compliance_incidents holds {rows} rows of the record, "
            "and would lose by which error they came; keep this database and start a new one if you must"
        )
    op.execute("ALTER POLICY service_adds ON pv_backup.backup_audit_events TO pv_backup_service WITH CHECK (true)")
    for trigger in ("audit_closing", "born_open", "close_once", "stay_on_record"):
        op.execute(f"DROP TRIGGER {trigger} ON pv_backup.compliance_incidents")
    for function in ("audit_closing()", "guard_incident()", "visible(text)"):
        op.execute(f"DROP FUNCTION pv_backup.{function}")
    op.drop_constraint(op.f("compliance_incidents_drill_id_code_key"), TABLE, schema=SCHEMA, type_="unique")
    op.create_foreign_key(
        op.f("compliance_incidents_drill_id_fkey"),
        TABLE,
        "restoration_evidence",
        ["drill_id"],
        ["drill_id"],
        source_schema=SCHEMA,
        referent_schema=SCHEMA,
    )
    op.drop_constraint(op.f("compliance_incidents_code_check"), TABLE, schema=SCHEMA, type_="check")
    for column in ("next_step", "failed_check", "code"):
        op.drop_column(TABLE, column, schema=SCHEMA)
    _run("0001/incidents.sql")


def _run(guard: str) -> None:
    # no_parameters: psycopg then sends the whole file as it is, percent signs and several statements included.
    op.get_bind().exec_driver_sql(
        (GUARDS / guard).read_text(encoding="utf-8"), execution_options={"no_parameters": True}
    )
