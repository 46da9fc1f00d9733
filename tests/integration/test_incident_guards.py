"""What the database lets nobody do to an incident by SQL, and what is on record of whoever closes one by it (F4.5)."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from pv_backup.services.compliance import Compliance
from pv_backup.services.incidents import PLAN_MIN, check_plan, visible
from tests.integration.incident_world import PLAN, TABLE, events_of, journal_for_all, opened_incident
from tests.integration.journal_world import opened
from tests.support.servers import JournalDatabase

pytestmark = pytest.mark.case("TC-ERR-07")

CLOSE = "closed_at = now(), closed_by = 'ann', action_plan = %s"


@pytest.fixture(scope="module")
def journal(stack) -> Iterator[JournalDatabase]:
    with journal_for_all(stack) as journal:
        yield journal


@pytest.fixture(scope="module")
def world(journal):
    with opened(journal) as world:
        yield world


@pytest.fixture
def compliance(world):
    return Compliance(world.sessions)


@pytest.fixture
def service(journal):
    with psycopg.connect(journal.service_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture(params=["service", "owner", "superuser"])
def anybody(request, journal):
    """Each role that can log in here, triggers switched off as far as that role may."""
    with psycopg.connect(getattr(journal, f"{request.param}_dsn"), autocommit=True) as connection:
        if request.param == "superuser":
            connection.execute("SET session_replication_role = replica")
        yield connection


@pytest.fixture
def incident(compliance):
    return opened_incident(compliance)


def update(connection, incident, changes, *parameters):
    """Try to change one incident."""
    connection.execute(f"UPDATE {TABLE} SET {changes} WHERE incident_id = %s", (*parameters, incident))


SAYS_NOTHING = [
    None,
    "",
    " \n\t",
    "ok",
    "x" * (PLAN_MIN - 1),
    "d o n e" + " " * 40,
    "x" * PLAN_MIN,
    "abcd" * PLAN_MIN,
    "\u200b\u2060\ufeff\u00ad\u202e" * 8,
    "\u2800\u3164\u115f\u1160\uffa0" * 8,
    "\u00a0\u2003\u3000\u2009\u205f" * 8,
    "o\u200bk\u2060 \ufeffd\u00ado\u202en\u2800e" * 2,
]


@pytest.mark.parametrize("plan", SAYS_NOTHING, ids=ascii)
def test_nobody_closes_by_sql_without_a_plan(anybody, compliance, incident, plan):
    with pytest.raises(psycopg.errors.CheckViolation, match="can't be closed with"):
        update(anybody, incident, CLOSE, plan)
    assert compliance.incident(incident).is_open


@pytest.mark.parametrize("name", [None, "", " ", "\u200b\u3164"])
def test_nobody_closes_by_sql_without_a_name(anybody, compliance, incident, name):
    with pytest.raises(psycopg.errors.CheckViolation, match="the name of who closes it"):
        update(anybody, incident, "closed_at = now(), closed_by = %s, action_plan = %s", name, PLAN)
    assert compliance.incident(incident).is_open


@pytest.mark.parametrize(
    "change", ["closed_at = now()", "action_plan = 'a plan long enough to be one'", "closed_by = 'ann'"]
)
def test_a_part_of_a_closing_is_refused(anybody, compliance, incident, change):
    with pytest.raises(psycopg.errors.CheckViolation, match="can't be closed without"):
        update(anybody, incident, change)
    assert compliance.incident(incident).action_plan is None


@pytest.mark.parametrize(
    "column", ["code", "failed_check", "reason", "next_step", "opened_at", "drill_id", "incident_id"]
)
def test_what_was_opened_stays(anybody, compliance, incident, column):
    before = compliance.incident(incident)
    values = {"opened_at": "now()", "drill_id": "gen_random_uuid()", "incident_id": "gen_random_uuid()"}
    change = f"{column} = {values.get(column) or chr(39) + 'X' + chr(39)}"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        update(anybody, incident, change)
    # Nor as a passenger of a closing.
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        update(anybody, incident, f"{CLOSE}, {change}", PLAN)
    assert compliance.incident(incident) == before


@pytest.mark.parametrize("attack", [f"DELETE FROM {TABLE}", f"TRUNCATE {TABLE}"])
def test_it_stays_on_record(anybody, compliance, incident, attack):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        anybody.execute(attack)
    assert compliance.incident(incident).is_open


def test_closed_once_and_never_changed_again(anybody, compliance, incident):
    update(anybody, incident, CLOSE, PLAN)
    before = compliance.incident(incident)
    for change in (CLOSE, CLOSE.replace("closed_at = now()", "closed_at = NULL")):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
            update(anybody, incident, change, PLAN)
    assert compliance.incident(incident) == before


def test_none_is_born_closed(anybody):
    for columns, values in (
        ("closed_at, closed_by, action_plan", f"now(), 'ann', '{PLAN}'"),
        ("closed_at", "now()"),
        ("action_plan", f"'{PLAN}'"),
    ):
        with pytest.raises(psycopg.errors.CheckViolation, match="opened and closed in one"):
            anybody.execute(
                f"INSERT INTO {TABLE} (incident_id, code, reason, {columns})"
                f" VALUES (gen_random_uuid(), 'CONTRACT', 'x', {values})"
            )


@pytest.mark.parametrize("code", ["NULL", "''", "' '", "'err'"])
def test_none_is_born_without_a_code(service, code):
    with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation), match="code"):
        service.execute(f"INSERT INTO {TABLE} (incident_id, code, reason) VALUES (gen_random_uuid(), {code}, 'x')")


def test_the_database_says_when_whatever_the_statement_says(service, compliance):
    incident_id = str(uuid4())
    service.execute(
        f"INSERT INTO {TABLE} (incident_id, code, reason, opened_at) VALUES (%s, 'CONTRACT', 'x', '2001-01-01')",
        (incident_id,),
    )
    update(service, incident_id, CLOSE.replace("now()", "'infinity'"), PLAN)
    closed = compliance.incident(incident_id)
    assert closed.opened_at < closed.closed_at
    assert closed.closed_at - closed.opened_at < timedelta(minutes=1)
    assert abs(closed.opened_at - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "plan", ["Ann dreht bis Freitag die Bänder um.", "アンさんが金曜日までに壊れたディスクを交換して再試験します"]
)
def test_a_plan_in_any_language_closes_by_either_way(anybody, compliance, incident, plan):
    assert check_plan(plan) == plan
    update(anybody, incident, CLOSE, plan)
    assert compliance.incident(incident).action_plan == plan


def test_whoever_closes_by_sql_is_on_record_once(anybody, world, compliance, incident):
    """The service by SQL too, which is not the service by its code."""
    update(anybody, incident, CLOSE, PLAN)
    role = anybody.execute("SELECT session_user").fetchone()[0]

    (_, closing) = events_of(world, incident)
    assert closing["event_type"] == "incident_closed"
    assert closing["details"] == {"incident_id": incident, "action_plan": PLAN, "closed_by": "ann", "by_sql_as": role}


def test_another_event_stands_for_no_closing(service, world, incident):
    """What is said beforehand must not keep the truth out."""
    service.execute(
        "INSERT INTO pv_backup.backup_audit_events (event_type, details)"
        " VALUES ('incident_closed', jsonb_build_object('incident_id', %s::text, 'closed_by', 'nobody'))",
        (incident,),
    )
    update(service, incident, CLOSE, PLAN)

    assert [event["details"]["closed_by"] for event in events_of(world, incident)[1:]] == ["nobody", "ann"]


def test_the_owner_adds_nothing_else_to_the_audit(journal):
    with (
        psycopg.connect(journal.owner_dsn) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"),
    ):
        connection.execute(
            "INSERT INTO pv_backup.backup_audit_events (event_type, details) VALUES ('plan_refused', '{}')"
        )


def test_service_and_database_see_the_same_characters(service):
    """Each that Unicode of this Python knows and a text can hold."""
    known = [
        character
        for character in map(chr, range(1, sys.maxunicode + 1))
        if unicodedata.category(character) not in {"Cn", "Cs"}
    ]
    drawn = {character for character in known if visible(character)}
    for text, expected in (
        ("".join(character for character in known if character in drawn), drawn),
        ("".join(character for character in known if character not in drawn), set()),
    ):
        (seen,) = service.execute("SELECT pv_backup.visible(%s)", (text,)).fetchone()
        assert {f"U+{ord(character):04X}" for character in set(seen) ^ expected} == set()


def test_service_and_database_ask_for_the_same_length():
    newest = max((Path(__file__).parents[2] / "include" / "sql").glob("[0-9]*/incidents.sql"))

    assert re.findall(r"plan_min CONSTANT int := (\d+);", newest.read_text()) == [str(PLAN_MIN)]
