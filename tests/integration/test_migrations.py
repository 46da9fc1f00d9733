"""Migrations on a real database: forward and back, twice without harm, never over a record."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pv_backup.services.models import Base
from tests.integration.journal_world import opened

pytestmark = pytest.mark.case("TC-INV-05")

INI = Path(__file__).parents[2] / "include" / "migrations" / "alembic.ini"
PASSWORD = "correct-horse-battery"


@pytest.fixture
def world(journal_db):
    with opened(journal_db) as world:
        yield world


def alembic(*arguments, dsn, cwd):
    """Run the command as an operator does, from a folder that is not the project's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PV_BACKUP_")}
    if dsn:
        environment["PV_BACKUP_JOURNAL_OWNER_DSN"] = dsn
    return subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(INI), *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def tables(world):
    found = world.sql("SELECT relname FROM pg_class WHERE relnamespace = 'pv_backup'::regnamespace AND relkind = 'r'")
    return {row["relname"] for row in found} - {"alembic_version"}


MODELLED = {table.name for table in Base.metadata.tables.values()}


def test_up_and_down_each_twice_without_harm(world, journal_db, tmp_path):
    for command, expected in (
        (("upgrade", "head"), MODELLED),
        (("downgrade", "base"), set()),
        (("downgrade", "base"), set()),
        (("upgrade", "head"), MODELLED),
    ):
        done = alembic(*command, dsn=journal_db.owner_dsn, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert tables(world) == expected
    functions = world.sql("SELECT proname FROM pg_proc WHERE pronamespace = 'pv_backup'::regnamespace")
    assert {row["proname"] for row in functions} == {"refuse_change", "guard_incident"}


def test_the_models_are_the_migrated_schema(journal_db, tmp_path):
    done = alembic("check", dsn=journal_db.owner_dsn, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No new upgrade operations detected" in done.stdout


def test_the_check_sees_a_difference(world, journal_db, tmp_path):
    world.sql("ALTER TABLE pv_backup.backup_executions DROP COLUMN facts")
    done = alembic("check", dsn=journal_db.owner_dsn, cwd=tmp_path)
    assert done.returncode != 0
    assert "facts" in done.stdout + done.stderr


def test_downgrade_refuses_while_the_record_has_rows(world, journal_db, tmp_path):
    attempt = world.open()
    world.machine.fail(attempt.backup_id, error_code="ERR-47-01", error_text="x")
    before = world.sql("SELECT * FROM pv_backup.backup_journal_events")
    done = alembic("downgrade", "base", dsn=journal_db.owner_dsn, cwd=tmp_path)
    assert done.returncode != 0
    assert "downgrade refused, nothing was changed: pv_backup.backup_journal_events holds 1 rows" in done.stderr
    assert tables(world) == MODELLED
    assert world.sql("SELECT * FROM pv_backup.backup_journal_events") == before
    assert world.sql("SELECT version_num FROM pv_backup.alembic_version") == [{"version_num": "0001"}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "PV_BACKUP_JOURNAL_OWNER_DSN is not set"),
        ({"user": "pv_backup_service"}, "must run as pv_backup_owner, not as pv_backup_service"),
        ({"user": "postgres"}, "must run as pv_backup_owner, not as postgres"),
        ({"dbname": "no_such_journal"}, "can't be reached"),
        ({"port": "1"}, "can't be reached"),
    ],
)
def test_a_wrong_connection_is_named_without_its_password(world, journal_db, tmp_path, change, said):
    source = journal_db.owner_dsn
    if change and (user := change.get("user")):
        source = journal_db.superuser_dsn if user == "postgres" else journal_db.service_dsn
        change = {}
    dsn = None if change is None else make_conninfo(source, **change)
    done = alembic("upgrade", "head", dsn=dsn, cwd=tmp_path)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if change:
        leaky = alembic("upgrade", "head", dsn=make_conninfo(source, **change, password=PASSWORD), cwd=tmp_path)
        assert PASSWORD not in leaky.stdout + leaky.stderr


def test_an_owner_who_may_not_create_the_schema_is_told_the_remedy(world, journal_db, tmp_path):
    world.sql("DROP SCHEMA pv_backup CASCADE")
    (name,) = world.sql("SELECT current_database() AS name")
    world.sql(f'REVOKE CREATE ON DATABASE "{name["name"]}" FROM pv_backup_owner')
    done = alembic("upgrade", "head", dsn=journal_db.owner_dsn, cwd=tmp_path)
    assert done.returncode != 0
    assert "pv_backup_owner may not create schema pv_backup here; run include/sql/roles.sql" in done.stderr


@pytest.mark.case("TC-ERR-07")
class TestIncidents:
    """The database refuses a closing without an action plan (SPEC F4.5)."""

    @pytest.fixture
    def service(self, world, journal_db):
        with psycopg.connect(journal_db.service_dsn, autocommit=True) as connection:
            yield connection

    @pytest.fixture
    def incident(self, service):
        incident_id = str(uuid4())
        service.execute(
            "INSERT INTO pv_backup.compliance_incidents (incident_id, reason) VALUES (%s, 'drill failed')",
            (incident_id,),
        )
        return incident_id

    @pytest.mark.parametrize("plan", [None, "", " \n\t"])
    def test_no_closing_without_a_plan(self, service, incident, plan):
        with pytest.raises(psycopg.errors.CheckViolation, match="without an action plan"):
            service.execute(
                "UPDATE pv_backup.compliance_incidents SET closed_at = now(), closed_by = 'ann', action_plan = %s",
                (plan,),
            )

    def test_closed_once_and_never_changed_again(self, service, incident):
        close = "UPDATE pv_backup.compliance_incidents SET closed_at = now(), closed_by = 'ann', action_plan = %s"
        service.execute(close, ("replace the disk",))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
            service.execute(close, ("forget it",))

    def test_what_was_opened_stays(self, world, service, incident):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute("UPDATE pv_backup.compliance_incidents SET reason = 'nothing'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
            world.sql("UPDATE pv_backup.compliance_incidents SET reason = 'nothing'")
        for attack in ("DELETE FROM pv_backup.compliance_incidents", "TRUNCATE pv_backup.compliance_incidents"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute(attack)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="stay on record"):
                world.sql(attack)

    def test_none_is_born_closed_without_a_plan(self, service):
        with pytest.raises(psycopg.errors.CheckViolation, match="closed_with_action_plan"):
            service.execute(
                "INSERT INTO pv_backup.compliance_incidents (incident_id, reason, closed_at, closed_by)"
                " VALUES (gen_random_uuid(), 'x', now(), 'ann')"
            )
