"""The record on a real database: nobody rewrites it, duplicates change nothing, and an outage reads plainly."""

from __future__ import annotations

import socket
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from pv_backup.services import database
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.database import engine_for, sessions_for, transaction
from pv_backup.services.errors import ConfigurationError, FormatRejected, JournalUnavailable
from pv_backup.services.journal import Audit, Journal, JournalEvent
from pv_backup.services.leases import Leases
from pv_backup.services.models import Outcome
from pv_backup.services.state import StateMachine
from tests.integration.journal_world import ARTEFACT, DAY, opened

LIMITS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
APPEND_ONLY = {
    "backup_journal_events": "outcome",
    "backup_audit_events": "event_type",
    "restoration_evidence": "verdict",
}
ATTACKS = {
    "UPDATE": "UPDATE pv_backup.{table} SET {column} = {column}",
    "UPDATE of no row": "UPDATE pv_backup.{table} SET {column} = {column} WHERE false",
    "DELETE": "DELETE FROM pv_backup.{table}",
    "DELETE of no row": "DELETE FROM pv_backup.{table} WHERE id = -1",
    "TRUNCATE": "TRUNCATE pv_backup.{table} CASCADE",
    "upsert": "INSERT INTO pv_backup.{table} OVERRIDING SYSTEM VALUE SELECT * FROM pv_backup.{table}"
    " ON CONFLICT (id) DO UPDATE SET {column} = EXCLUDED.{column}",
}
PASSWORD = "correct-horse-battery"


@pytest.fixture
def world(journal_db):
    with opened(journal_db) as world:
        yield world


@pytest.fixture
def record(world):
    """One row in each table of the record, written as the service writes them."""
    attempt = world.open()
    world.machine.record_artefact(attempt.lease, ARTEFACT, {})
    world.machine.record_verified(attempt.lease)
    world.machine.succeed(attempt.lease)
    world.audit.record("note", backup_id=attempt.backup_id, details={"text": "nul \0", "count": 1})
    with transaction(world.sessions, "adding evidence") as session:
        session.connection().exec_driver_sql(
            "INSERT INTO pv_backup.restoration_evidence (drill_id, verdict, document)"
            " VALUES (gen_random_uuid(), 'PASSED', '{}')"
        )
    return attempt.backup_id


def rows(world):
    return {table: world.sql(f"SELECT * FROM pv_backup.{table} ORDER BY id") for table in APPEND_ONLY}


def event(**changes):
    known = {
        "backup_id": str(uuid4()),
        "artefact_type": ArtefactType.PG_DUMP,
        "day": DAY,
        "outcome": Outcome.SUCCESS,
        "object_key": "2026/03/backup_20260329.enc",
        "hash_sha3_256": ARTEFACT.hash_sha3_256,
        "size_bytes": 4711,
        "k_backup_version": 3,
    }
    return JournalEvent(**known | changes)


@pytest.mark.case("TC-NEG-07", "TC-INV-05")
class TestNobodyRewritesTheRecord:
    @pytest.mark.parametrize("role", ["owner", "service", "superuser"])
    def test_every_attempt_raises_and_changes_nothing(self, world, record, journal_db, role):
        before = rows(world)
        assert all(before.values())
        with psycopg.connect(getattr(journal_db, f"{role}_dsn"), autocommit=True) as connection:
            for table, column in APPEND_ONLY.items():
                for name, attack in ATTACKS.items():
                    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
                        connection.execute(attack.format(table=table, column=column))
                    said = refused.value.diag.message_primary
                    if role == "service":
                        # PostgreSQL itself refuses first: the service has not even the privilege.
                        assert said == f"permission denied for table {table}"
                    elif name != "upsert" or role == "superuser":
                        # The owner may not insert, which is said before its upsert comes to the update.
                        operation = "UPDATE" if name == "upsert" else name.split()[0]
                        assert f"{operation} on pv_backup.{table} refused" in said
                        assert "append-only (INV-47-05)" in said
        assert rows(world) == before

    def test_the_trigger_stands_even_where_triggers_are_switched_off(self, world, record):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            world.sql("SET session_replication_role = replica; DELETE FROM pv_backup.backup_journal_events")

    def test_the_trigger_stands_alone_when_a_privilege_slips(self, world, record, journal_db):
        world.sql("GRANT UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA pv_backup TO pv_backup_service")
        before = rows(world)
        with psycopg.connect(journal_db.service_dsn, autocommit=True) as connection:
            for table, column in APPEND_ONLY.items():
                for attack in ATTACKS.values():
                    if "CONFLICT" not in attack:
                        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                            connection.execute(attack.format(table=table, column=column))
        assert rows(world) == before

    def test_row_level_security_is_forced_and_knows_insert_and_select_only(self, world):
        forced = world.sql(
            "SELECT relname FROM pg_class WHERE relnamespace = 'pv_backup'::regnamespace"
            " AND relrowsecurity AND relforcerowsecurity"
        )
        assert {row["relname"] for row in forced} == set(APPEND_ONLY)
        policies = world.sql("SELECT tablename, cmd FROM pg_policies WHERE schemaname = 'pv_backup'")
        assert sorted((row["tablename"], row["cmd"]) for row in policies) == sorted(
            (table, command) for table in APPEND_ONLY for command in ("INSERT", "SELECT")
        )

    def test_executions_can_be_changed_but_not_removed_by_the_service(self, world, record, journal_db):
        with psycopg.connect(journal_db.service_dsn, autocommit=True) as connection:
            for attack in ("DELETE FROM pv_backup.backup_executions", "TRUNCATE pv_backup.backup_executions"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(attack)
            connection.execute("UPDATE pv_backup.backup_executions SET error_text = NULL")

    def test_public_has_nothing(self, world):
        (held,) = world.sql(
            "SELECT has_database_privilege('public', current_database(), 'CONNECT, TEMP, CREATE') AS database,"
            " has_schema_privilege('public', 'pv_backup', 'USAGE, CREATE') AS schema,"
            " bool_or(has_table_privilege('public', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')) AS tables"
            " FROM pg_class WHERE relnamespace = 'pv_backup'::regnamespace AND relkind = 'r'"
        )
        assert held == {"database": False, "schema": False, "tables": False}


@pytest.mark.case("TC-INV-05")
class TestTheFirstOutcomeStands:
    def test_a_duplicate_is_a_no_op(self, world):
        first = event()
        with transaction(world.sessions, "a test") as session:
            assert world.journal.write(session, first) is Outcome.SUCCESS
        before = rows(world)
        with transaction(world.sessions, "a test") as session:
            assert world.journal.write(session, first) is Outcome.SUCCESS
            other = event(backup_id=first.backup_id, outcome=Outcome.FAILED, error_code="ERR-47-04")
            assert world.journal.write(session, other) is Outcome.SUCCESS
        assert rows(world) == before
        assert world.journal.event_of(first.backup_id).outcome == Outcome.SUCCESS

    def test_the_audit_takes_any_number(self, world):
        backup_id = str(uuid4())
        for count in range(3):
            world.audit.record("alert", backup_id=backup_id, details={"count": count, "text": "x" * 5000})
        assert [entry.details["count"] for entry in world.audit.events_of(backup_id)] == [0, 1, 2]
        assert len(world.audit.events_of(backup_id)[0].details["text"]) == 4000

    @pytest.mark.case("TC-NEG-05")
    @pytest.mark.parametrize(
        ("field", "changes"),
        [
            ("backup_id", {"backup_id": "x"}),
            ("hash_sha3_256", {"hash_sha3_256": None}),
            ("hash_sha3_256", {"outcome": Outcome.FAILED, "error_code": "E", "hash_sha3_256": "AB" * 32}),
            ("size_bytes", {"size_bytes": None}),
            ("size_bytes", {"size_bytes": 2**53}),
            ("s3_object_key_backup", {"object_key": "2026/03/basebackup_20260329.enc"}),
            ("s3_object_key_wal", {"artefact_type": ArtefactType.WAL, "day": None}),
        ],
    )
    def test_a_malformed_event_never_reaches_the_journal(self, world, field, changes):
        with pytest.raises(FormatRejected) as refused, transaction(world.sessions, "a test") as session:
            world.journal.write(session, event(**changes))
        assert refused.value.field == field
        assert world.sql("SELECT 1 FROM pv_backup.backup_journal_events") == []


@pytest.mark.case("TC-ERR-06")
class TestTheJournalCannotBeWritten:
    def everything_fails(self, sessions):
        backup_id = str(uuid4())
        for call in (
            lambda: Journal(sessions).event_of(backup_id),
            lambda: Audit(sessions).record("note", details={}),
            lambda: Leases(sessions).acquire(backup_id, 60),
            lambda: StateMachine(sessions).fail(backup_id, error_code="E", error_text="x"),
            lambda: StateMachine(sessions).open_day(
                artefact_type=ArtefactType.PG_DUMP, day=DAY, run_id="r", lease_s=60, max_replanification_cycles=3
            ),
        ):
            with pytest.raises(JournalUnavailable) as unavailable:
                call()
            assert unavailable.value.code == "ERR-47-06"
            assert unavailable.value.remedy
            assert PASSWORD not in str(unavailable.value)
            # `from None` keeps the driver's error, with statement and parameters, out of every traceback.
            assert unavailable.value.__suppress_context__
            yield unavailable.value.what

    def test_a_closed_port(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        sessions = sessions_for(f"postgresql://pv_backup_service:{PASSWORD}@127.0.0.1:{port}/journal")
        assert all("can't be reached while" in what and "refused" in what for what in self.everything_fails(sessions))

    def test_a_missing_database(self, journal_db):
        dsn = make_conninfo(journal_db.service_dsn, dbname="no_such_journal")
        assert all("no_such_journal" in what for what in self.everything_fails(sessions_for(dsn)))

    def test_a_table_that_is_not_there(self, world):
        world.sql("ALTER SCHEMA pv_backup RENAME TO elsewhere")
        assert all("SQLSTATE" in what for what in self.everything_fails(world.sessions))

    def test_a_connection_cut_in_mid_transaction_leaves_nothing(self, world):
        attempt = world.open()

        def cut_between_two_events():
            with transaction(world.sessions, "cutting") as session:
                world.journal.write(session, event(backup_id=attempt.backup_id))
                world.sql(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND usename = 'pv_backup_service'"
                )
                world.journal.write(session, event())

        with pytest.raises(JournalUnavailable, match="while cutting"):
            cut_between_two_events()
        # The pool has noticed: the next question is answered.
        assert world.journal.event_of(attempt.backup_id) is None

    def test_a_server_that_stops_in_mid_run_leaves_the_attempt_as_it_was(self, world, stack):
        attempt = world.open()
        world.machine.record_artefact(attempt.lease, ARTEFACT, {})
        world.machine.record_verified(attempt.lease)
        stack.postgres.stop()
        with pytest.raises(JournalUnavailable, match="while writing SUCCESS"):
            world.machine.succeed(attempt.lease)
        stack.postgres.start()
        assert world.row()["status"] == "RUNNING"
        world.machine.succeed(attempt.lease)
        assert world.row()["status"] == "SUCCESS"

    def test_a_lock_whose_holder_is_stuck_reads_like_an_outage(self, world, monkeypatch):
        attempt = world.open()
        limits = str(database._LIMITS).replace("'20s'", "'200ms'")
        monkeypatch.setattr(database, "_LIMITS", text(limits))
        with world.row_locked(), pytest.raises(JournalUnavailable, match="lock timeout"):
            world.leases.renew(attempt.lease, 60)
        world.leases.renew(attempt.lease, 60)

    def test_no_transaction_waits_for_ever_on_either_side(self, world, journal_db):
        with transaction(world.sessions, "looking at its limits") as session:
            limits = [session.scalar(text(f"SHOW {name}")) for name in LIMITS]
            known = session.connection().connection.driver_connection.info.get_parameters()
        assert limits == ["20s", "1min", "90s"]
        assert known["connect_timeout"] == "5"
        assert known["tcp_user_timeout"] == "20000"
        assert known["keepalives_idle"] == "15"

    def test_a_connection_string_may_be_more_patient(self, journal_db):
        with sessions_for(make_conninfo(journal_db.service_dsn, tcp_user_timeout=60000))() as session:
            known = session.connection().connection.driver_connection.info.get_parameters()
        assert known["tcp_user_timeout"] == "60000"

    def test_an_outcome_that_cannot_be_journaled_leaves_the_status_alone(self, world):
        attempt = world.open()
        world.machine.record_artefact(attempt.lease, ARTEFACT, {})
        world.machine.record_verified(attempt.lease)
        world.sql("REVOKE INSERT ON pv_backup.backup_journal_events FROM pv_backup_service")
        with pytest.raises(JournalUnavailable, match="permission denied for table backup_journal_events"):
            world.machine.succeed(attempt.lease)
        assert world.row()["status"] == "RUNNING"

    def test_the_password_is_in_no_text_of_the_engine(self, journal_db):
        password = str(conninfo_to_dict(journal_db.service_dsn)["password"])
        engine = engine_for(journal_db.service_dsn)
        assert password not in repr(engine) + engine.url.render_as_string(hide_password=False)
        with pytest.raises(ProgrammingError) as raised, engine.connect() as connection:
            connection.exec_driver_sql("SELECT no_such_column")
        assert password not in str(raised.value)
        engine.dispose()

    def test_a_connection_string_that_cannot_be_read_is_not_quoted(self):
        with pytest.raises(ConfigurationError) as refused:
            engine_for(f"postgresql//pv_backup_service:{PASSWORD}@localhost/journal")
        assert PASSWORD not in str(refused.value)
