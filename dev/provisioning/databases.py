"""PostgreSQL: login roles with passwords, the databases, and their migrations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
from psycopg import sql

from dev.credentials import Credentials
from dev.servers.postgres import Postgres

ROOT = Path(__file__).parents[2]
ROLES_SQL = ROOT / "include" / "sql" / "roles.sql"
OWNER, SERVICE, DUMP, AIRFLOW = "pv_backup_owner", "pv_backup_service", "pv_backup_dump", "airflow"
RECEIVER = "pv_backup_receivewal"
_Connection = psycopg.Connection[tuple[object, ...]]
SOURCE_DB, JOURNAL_DB, AIRFLOW_DB = "source", "journal", "airflow"


def ensure_roles(postgres: Postgres, credentials: Credentials) -> None:
    """Make the login roles: the journal's two, Airflow's, and the superuser that dumps the source.

    Only a superuser can dump everything (SPEC F1.1); a role of its own shows in pg_stat_activity who is reading.
    """
    ensure_journal_roles(postgres, credentials)
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        _ensure_login(connection, DUMP, attributes="SUPERUSER", password=password_of(credentials, DUMP))


def ensure_journal_roles(postgres: Postgres, credentials: Credentials) -> None:
    """Make the login roles of a server that is not dumped: the journal's two, and Airflow's."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        connection.execute(ROLES_SQL.read_text().encode())
        for role in (OWNER, SERVICE, AIRFLOW):
            _ensure_login(connection, role, attributes="", password=password_of(credentials, role))


def ensure_source_roles(postgres: Postgres, *, dump_password: str, receiver_password: str) -> None:
    """Make the two roles of a server that is backed up as a whole: the one that reads it, and pg_receivewal's."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        _ensure_login(connection, DUMP, attributes="SUPERUSER", password=dump_password)
        _ensure_login(connection, RECEIVER, attributes="REPLICATION", password=receiver_password)


def password_of(credentials: Credentials, role: str) -> str:
    """The password of one of the roles above."""
    return credentials.get(f"postgres_{role}")


def ensure_databases(postgres: Postgres) -> None:
    """Make Airflow's database and the journal."""
    ensure_database(postgres, AIRFLOW_DB, owner=AIRFLOW)
    ensure_database(postgres, JOURNAL_DB)
    grant_journal(postgres, JOURNAL_DB)


def ensure_database(postgres: Postgres, name: str, *, owner: str | None = None, template: str = "template1") -> None:
    """Make one database unless it is there; copied file by file from its template, which is quick for small ones."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        if not _exists(connection, "SELECT FROM pg_database WHERE datname = %s", name):
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(template), sql.Identifier(owner or "postgres")
                )
            )


def drop_database(postgres: Postgres, name: str) -> None:
    """Drop a database and end whoever is still connected to it."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def grant_journal(postgres: Postgres, name: str) -> None:
    """Let the journal's roles into this database; grants on a database are not copied from a template."""
    with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
        connection.execute(ROLES_SQL.read_text().encode())


def migrate_journal(owner_dsn: str) -> None:
    """Bring the journal database to the newest schema, by the command that a deployment runs.

    :raises subprocess.CalledProcessError: with Alembic's own message on standard error.
    """
    subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "include/migrations/alembic.ini"), "upgrade", "head"],
        env={**os.environ, "PV_BACKUP_JOURNAL_OWNER_DSN": owner_dsn},
        check=True,
        capture_output=True,
        text=True,
    )


def _ensure_login(connection: _Connection, role: str, *, attributes: str, password: str) -> None:
    if not _exists(connection, "SELECT FROM pg_roles WHERE rolname = %s", role):
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN " + attributes).format(sql.Identifier(role)))
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), password))


def _exists(connection: _Connection, query: str, name: str) -> bool:
    return connection.execute(query, (name,)).fetchone() is not None
