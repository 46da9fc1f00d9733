"""Break-glass: an empty journal is told what the lost one knew, by what the bucket proves and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import psycopg
import pytest
from psycopg import sql

from dev.provisioning.databases import drop_database
from tests.integration.backup_world import KEY
from tests.integration.break_glass_world import BASE, DAMAGED, FAILED, OK, Left
from tests.integration.wal_world import wait_until
from tests.support.servers import TestStack

pytestmark = [pytest.mark.case("TC-NOM-04")]


@pytest.fixture
def journal(stack: TestStack, left: Left, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new journal database, empty and migrated; its superuser's DSN. The command's variable holds the service's."""
    made = stack.new_journal()
    monkeypatch.setitem(left.command.environment, "PV_BACKUP_JOURNAL_DSN", made.service_dsn)
    yield made.superuser_dsn
    drop_database(stack.postgres, made.superuser_dsn.rpartition("/")[2])


def rows(dsn: str, query: str) -> list[dict[str, object]]:
    with psycopg.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.case("TC-INV-05", "TC-INV-07")
def test_an_empty_journal_is_told_what_the_lost_one_knew(left: Left, journal: str):
    rebuilt = left.command("rebuild-journal")

    assert rebuilt.returncode == OK, rebuilt.stderr.decode()
    events = rows(journal, "SELECT * FROM pv_backup.backup_journal_events")
    kept = ("backup_id", "type", "day", "outcome", "object_key", "hash_sha3_256", "size_bytes", "k_backup_version")
    assert {event["object_key"]: [event[name] for name in kept] for event in events} == {
        key: [event[name] for name in kept] for key, event in left.events.items()
    }
    for row in rows(journal, "SELECT * FROM pv_backup.backup_executions"):
        manifest = left.world.bucket.manifest(str(row["object_key"]))
        assert manifest is not None
        assert row["status"] == "SUCCESS"
        assert row["verified_auth_tag"] == row["auth_tag"] == manifest["header_tag"]
        assert row["finished_at"] == datetime.fromisoformat(manifest["finished_at"]), "retention counts from there"
    audit = rows(journal, "SELECT event_type, details FROM pv_backup.backup_audit_events ORDER BY id")
    told = [event["event_type"] for event in audit]
    assert told == ["journal_rebuild_begun", *["adopted"] * 3, "journal_rebuild_finished"]
    assert all("@" in event["details"]["by"] for event in audit)


@pytest.mark.case("TC-INV-05")
def test_a_journal_that_has_rows_is_refused(left: Left, journal: str):
    left.command("rebuild-journal")
    before = rows(journal, "SELECT * FROM pv_backup.backup_journal_events ORDER BY id")

    again = left.command("rebuild-journal")

    assert again.returncode == FAILED
    assert b"only an empty one is rebuilt" in again.stderr
    assert rows(journal, "SELECT * FROM pv_backup.backup_journal_events ORDER BY id") == before


@pytest.mark.case("TC-INV-04")
def test_what_is_damaged_is_left_out_of_the_journal_and_said(left: Left, journal: str):
    with left.damaged(KEY):
        rebuilt = left.command("rebuild-journal")

    assert rebuilt.returncode == DAMAGED
    assert KEY in rebuilt.stderr.decode()
    known = {row["object_key"] for row in rows(journal, "SELECT object_key FROM pv_backup.backup_journal_events")}
    assert known == left.events.keys() - {KEY}
    (left_out,) = rows(journal, "SELECT details FROM pv_backup.backup_audit_events WHERE event_type LIKE '%left_out'")
    assert left_out["details"]["object_key"] == KEY


def test_a_rebuild_that_was_killed_goes_on_where_it_was(left: Left, journal: str):
    event = left.events["2026/03/globals_20260329.enc"]
    with psycopg.connect(journal) as holding:
        # An uncommitted event of the same backup holds the rebuild at this one, for as long as it takes to kill it.
        columns = [name for name, value in event.items() if value is not None and name != "id"]
        holding.execute(
            sql.SQL("INSERT INTO pv_backup.backup_journal_events ({}) VALUES ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.SQL(", ").join(sql.Placeholder() * len(columns))
            ),
            [event[name] for name in columns],
        )
        rebuild = left.command.start("rebuild-journal")
        wait_until(
            lambda: rows(journal, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'journal'"),
            meaning="did the rebuild come to the event that is held",
        )
        rebuild.kill()
        rebuild.wait()
        holding.rollback()
    half = {row["object_key"] for row in rows(journal, "SELECT object_key FROM pv_backup.backup_journal_events")}
    assert half == {KEY, BASE}

    finished = left.command("rebuild-journal")

    assert finished.returncode == OK, finished.stderr.decode()
    assert "2 were there already" in finished.stdout.decode()
    known = {row["object_key"] for row in rows(journal, "SELECT object_key FROM pv_backup.backup_journal_events")}
    assert known == left.events.keys()
    assert not rows(journal, "SELECT FROM pv_backup.backup_executions WHERE status <> 'SUCCESS'")
