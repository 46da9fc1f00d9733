"""Runs the migrations of the journal database, as its owner and one runner at a time."""

from __future__ import annotations

import logging.config
import os

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from pv_backup.services.database import engine_for
from pv_backup.services.errors import ConfigurationError
from pv_backup.services.models import SCHEMA, Base

DSN_VARIABLE = "PV_BACKUP_JOURNAL_OWNER_DSN"
OWNER = "pv_backup_owner"
SERVICE = "pv_backup_service"


def _prepare(connection: Connection) -> None:
    """Name what bootstrap left out, before PostgreSQL says it less plainly; then make the schema.

    The schema comes before the first revision since Alembic keeps its own version table there.
    """
    remedy = "run include/sql/roles.sql in this database as a superuser"
    role, may_create = connection.execute(
        text("SELECT current_user, has_database_privilege(current_database(), 'CREATE')")
    ).one()
    if role != OWNER:
        raise CommandError(
            f"migrations must run as {OWNER}, not as {role}: what a superuser owns, row-level security doesn't guard; "
            f"set {DSN_VARIABLE} to the owner's connection (if the role is missing, {remedy})"
        )
    if not connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": SERVICE}):
        raise CommandError(f"role {SERVICE} does not exist; {remedy}")
    if connection.scalar(text("SELECT to_regnamespace(:schema) IS NULL"), {"schema": SCHEMA}):
        if not may_create:
            raise CommandError(f"{OWNER} may not create schema {SCHEMA} here; {remedy}")
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))


def _run() -> None:
    dsn = os.environ.get(DSN_VARIABLE, "")
    if not dsn:
        raise CommandError(f"{DSN_VARIABLE} is not set; give the owner's libpq URI, postgresql://{OWNER}@host/journal")
    if context.is_offline_mode():
        raise CommandError("--sql is not supported: the migrations check roles and rows of a live database")
    try:
        engine = engine_for(dsn)
    except ConfigurationError as error:
        raise CommandError(f"{DSN_VARIABLE}: {error}") from None
    try:
        connection = engine.connect()
    except OperationalError as error:
        raise CommandError(f"the database of {DSN_VARIABLE} can't be reached: {error.orig}") from None
    try:
        _migrate(connection)
    finally:
        connection.close()
        engine.dispose()


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
        compare_server_default=True,
    )
    with context.begin_transaction():
        # Two deployments at once: the second finds the work done.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('pv_backup migrations'))"))
        _prepare(connection)
        context.run_migrations()


if context.config.config_file_name is not None and context.config.cmd_opts is not None:
    # From the command line only: a caller inside Python keeps its own logging.
    logging.config.fileConfig(context.config.config_file_name, disable_existing_loggers=False)
_run()
