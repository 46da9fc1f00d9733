"""Compliance incidents on a real database: opened, closed once with an action plan, and nothing else (SPEC F4.5)."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from tests.integration.journal_world import opened

pytestmark = pytest.mark.case("TC-ERR-07")


@pytest.fixture
def world(journal_db):
    with opened(journal_db) as world:
        yield world


@pytest.fixture
def service(world, journal_db):
    with psycopg.connect(journal_db.service_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def incident(service):
    incident_id = str(uuid4())
    service.execute(
        "INSERT INTO pv_backup.compliance_incidents (incident_id, reason) VALUES (%s, 'drill failed')",
        (incident_id,),
    )
    return incident_id


@pytest.mark.parametrize("plan", [None, "", " \n\t"])
def test_no_closing_without_a_plan(service, incident, plan):
    with pytest.raises(psycopg.errors.CheckViolation, match="without an action plan"):
        service.execute(
            "UPDATE pv_backup.compliance_incidents SET closed_at = now(), closed_by = 'ann', action_plan = %s",
            (plan,),
        )


def test_closed_once_and_never_changed_again(service, incident):
    close = "UPDATE pv_backup.compliance_incidents SET closed_at = now(), closed_by = 'ann', action_plan = %s"
    service.execute(close, ("replace the disk",))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
        service.execute(close, ("forget it",))


def test_what_was_opened_stays(world, service, incident):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        service.execute("UPDATE pv_backup.compliance_incidents SET reason = 'nothing'")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
        world.sql("UPDATE pv_backup.compliance_incidents SET reason = 'nothing'")
    for attack in ("DELETE FROM pv_backup.compliance_incidents", "TRUNCATE pv_backup.compliance_incidents"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute(attack)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="stay on record"):
            world.sql(attack)


def test_none_is_born_closed_without_a_plan(service):
    with pytest.raises(psycopg.errors.CheckViolation, match="closed_with_action_plan"):
        service.execute(
            "INSERT INTO pv_backup.compliance_incidents (incident_id, reason, closed_at, closed_by)"
            " VALUES (gen_random_uuid(), 'x', now(), 'ann')"
        )
