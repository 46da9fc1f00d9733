"""Migrations on a real database: forward and back, twice without harm, never over a record."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pv_backup.services.models import Base
from tests.integration.journal_world import opened

pytestmark = pytest.mark.case("TC-INV-05")

INI = Path(__file__).parents[2] / "include" / "migrations" / "alembic.ini"


@pytest.fixture
def world(journal_db):
    with opened(journal_db) as world:
        yield world


@pytest.fixture
def alembic(monkeypatch):
    """Run a command in this process, as `make` does in its own: an Alembic process takes two seconds to start."""

    def run(name, *arguments, dsn):
        monkeypatch.setenv("PV_BACKUP_JOURNAL_OWNER_DSN", dsn)
        said = io.StringIO()
        getattr(command, name)(Config(INI, stdout=said), *arguments)
        return said.getvalue()

    return run


def tables(world):
    found = world.sql("SELECT relname FROM pg_class WHERE relnamespace = 'pv_backup'::regnamespace AND relkind = 'r'")
    return {row["relname"] for row in found} - {"alembic_version"}


MODELLED = {table.name for table in Base.metadata.tables.values()}


def test_up_and_down_each_twice_without_harm(world, journal_db, alembic):
    for name, revision, expected in (
        ("upgrade", "head", MODELLED),
        ("downgrade", "base", set()),
        ("downgrade", "base", set()),
        ("upgrade", "head", MODELLED),
    ):
        alembic(name, revision, dsn=journal_db.owner_dsn)
        assert tables(world) == expected
    functions = world.sql("SELECT proname FROM pg_proc WHERE pronamespace = 'pv_backup'::regnamespace")
    assert {row["proname"] for row in functions} == {"refuse_change", "guard_incident", "audit_closing", "visible"}


def test_the_models_are_the_migrated_schema(journal_db, alembic):
    assert "No new upgrade operations detected" in alembic("check", dsn=journal_db.owner_dsn)


def test_the_check_sees_a_difference(world, journal_db, alembic):
    world.sql("ALTER TABLE pv_backup.backup_executions DROP COLUMN facts")
    with pytest.raises(CommandError, match="facts"):
        alembic("check", dsn=journal_db.owner_dsn)


def test_downgrade_refuses_while_the_record_has_rows(world, journal_db, alembic):
    attempt = world.open()
    world.machine.fail(attempt.backup_id, error_code="ERR-47-01", error_text="x")
    before = world.sql("SELECT * FROM pv_backup.backup_journal_events")
    with pytest.raises(CommandError) as refused:
        alembic("downgrade", "base", dsn=journal_db.owner_dsn)
    assert "refused, nothing was changed: pv_backup.backup_journal_events holds 1 rows" in str(refused.value)
    assert tables(world) == MODELLED
    assert world.sql("SELECT * FROM pv_backup.backup_journal_events") == before
    assert world.sql("SELECT version_num FROM pv_backup.alembic_version") == [{"version_num": "0002"}]


INCIDENT = "INSERT INTO pv_backup.compliance_incidents (incident_id, reason) VALUES (gen_random_uuid(), 'drill failed')"
CLOSE = "UPDATE pv_backup.compliance_incidents SET closed_at = now(), closed_by = 'ann', action_plan = %s"


def test_an_incident_of_before_gets_a_code_and_a_new_one_must_say_its_own(world, journal_db, alembic):
    alembic("downgrade", "0001", dsn=journal_db.owner_dsn)
    world.sql(INCIDENT)
    alembic("upgrade", "head", dsn=journal_db.owner_dsn)
    (row,) = world.sql("SELECT code, closed_at FROM pv_backup.compliance_incidents")
    assert row == {"code": "ERR-47-07", "closed_at": None}
    with pytest.raises(psycopg.errors.NotNullViolation, match="code"):
        world.sql(INCIDENT)


def test_the_way_back_leaves_the_guards_of_before(world, journal_db, alembic):
    alembic("downgrade", "0001", dsn=journal_db.owner_dsn)
    world.sql(INCIDENT)
    with pytest.raises(psycopg.errors.CheckViolation, match="without an action plan"):
        world.sql(CLOSE, " ")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="stay on record"):
        world.sql("SET session_replication_role = replica; DELETE FROM pv_backup.compliance_incidents")
    world.sql(CLOSE, "replace it")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
        world.sql(CLOSE, "forget it")


def test_an_incident_keeps_its_code_by_refusing_the_way_back(world, journal_db, alembic):
    world.sql(INCIDENT.replace("reason", "code, reason").replace("'drill", "'CONTRACT', 'drill"))
    with pytest.raises(CommandError, match=r"nothing was changed: pv_backup\.compliance_incidents holds 1 rows"):
        alembic("downgrade", "0001", dsn=journal_db.owner_dsn)
    assert world.sql("SELECT code FROM pv_backup.compliance_incidents") == [{"code": "CONTRACT"}]
    assert world.sql("SELECT version_num FROM pv_backup.alembic_version") == [{"version_num": "0002"}]


@pytest.mark.parametrize("user", ["service", "superuser"])
def test_only_the_owner_migrates(journal_db, alembic, user):
    dsn = getattr(journal_db, f"{user}_dsn")
    with pytest.raises(CommandError, match=f"as pv_backup_owner, not as {conninfo_to_dict(dsn)['user']}"):
        alembic("upgrade", "head", dsn=dsn)


@pytest.mark.parametrize("change", [{"dbname": "no_such_journal"}, {"port": "1"}])
def test_an_unreachable_database_is_named_without_its_password(journal_db, alembic, change):
    password = conninfo_to_dict(journal_db.owner_dsn)["password"]
    with pytest.raises(CommandError, match="can't be reached") as failed:
        alembic("upgrade", "head", dsn=make_conninfo(journal_db.owner_dsn, **change))
    assert password
    assert password not in str(failed.value)


def test_an_owner_who_may_not_create_the_schema_is_told_the_remedy(world, journal_db, alembic):
    world.sql("DROP SCHEMA pv_backup CASCADE")
    world.sql(f"REVOKE CREATE ON DATABASE {conninfo_to_dict(journal_db.owner_dsn)['dbname']} FROM pv_backup_owner")
    with pytest.raises(CommandError, match=r"may not create schema pv_backup here; run include/sql/roles\.sql"):
        alembic("upgrade", "head", dsn=journal_db.owner_dsn)


def test_the_command_says_what_is_missing_and_runs_from_anywhere(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PV_BACKUP_")}
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(INI), "upgrade", "head"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "PV_BACKUP_JOURNAL_OWNER_DSN is not set" in done.stderr
    assert "Traceback" not in done.stderr
