"""What a database sets for its own users neither stops a check of what was restored, nor hides damage from one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from pv_backup.services.errors import RestoreFailed
from pv_backup.services.evidence.document import Result
from pv_backup.services.postgres import Server, one_row
from pv_backup.services.restoration.amcheck import amcheck
from pv_backup.services.restoration.contract import run_contract
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.server import RestoredServer
from pv_backup.services.restoration.tools import make_private
from pv_backup.services.row_counts import count_rows
from tests.integration.contract_world import DEFAULTS, failed
from tests.support.clusters import open_directory

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-ERR-07")]

ROWS = 300_000
DATABASE = "archive"
# Each would end a check, or keep it from beginning.
SETTINGS = {
    "statement_timeout": "1ms",
    "default_transaction_read_only": "on",
    "session_preload_libraries": "nowhere",
    "role": "archivist",
    "temp_file_limit": "1kB",
    "idle_session_timeout": "1ms",
}


@pytest.fixture(scope="module")
def server(_guarded: None) -> Iterator[RestoredServer]:
    """One as a drill has it, with a database that sets nothing yet."""
    tools = Server({})
    base = open_directory()
    with Sandbox(base) as sandbox:
        make_private(sandbox.data, sandbox.user)
        command = [tools.tool("initdb"), f"--pgdata={sandbox.data}", "--username=postgres", "--auth=trust", "--no-sync"]
        sandbox.runner(tools).run(command, failing="initdb", remedy="")
        settings = {"max_prepared_transactions": "1"}
        with sandbox.new_server(tools, data=sandbox.data, settings=settings) as server:
            server.wait_until_recovered()
            with server.connect() as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}")
                connection.execute("CREATE ROLE archivist LOGIN")
            with server.connect(DATABASE) as connection:
                connection.execute("CREATE TABLE piece (id int PRIMARY KEY, entry text)")
                connection.execute(f"INSERT INTO piece SELECT n, 'entry ' || n FROM generate_series(1, {ROWS}) AS n")
            yield server
    base.rmdir()


@pytest.fixture
def database(server: RestoredServer) -> Iterator[Server]:
    """That database, with every one of the settings."""
    with server.connect() as connection:
        for name, value in SETTINGS.items():
            setting = sql.SQL("ALTER DATABASE {} SET {} = {}").format(*map(sql.Identifier, (DATABASE, name)), value)
            connection.execute(setting)
    yield server.server(DATABASE)
    with server.connect() as connection:
        connection.execute(f"ALTER DATABASE {DATABASE} RESET ALL")
    with server.connect(DATABASE) as connection:
        connection.execute("DROP EXTENSION IF EXISTS amcheck")


def test_the_rows_are_counted(database: Server):
    assert count_rows(database).rows == {"public.piece": ROWS}


def test_every_page_is_read(server: RestoredServer, database: Server):
    one, every = amcheck(database), amcheck(server.server(), everywhere=True)

    assert (one.result, every.result) == (Result.PASSED, Result.PASSED), (one.detail, every.detail)


def test_the_contract_is_run(database: Server):
    assert failed(run_contract(database, DEFAULTS)) == {}


def test_a_trigger_that_forbids_to_change_the_schema_does_not_keep_pg_amcheck_out(server: RestoredServer):
    with server.connect(DATABASE) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no DDL here'; END$$"
        )
        connection.execute("CREATE EVENT TRIGGER refusing ON ddl_command_start EXECUTE FUNCTION refuse()")
    try:
        check = amcheck(server.server(DATABASE))
    finally:
        with server.connect(DATABASE) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("DROP EVENT TRIGGER refusing")
            connection.execute("DROP EXTENSION IF EXISTS amcheck")

    assert check.result is Result.PASSED, check.detail


def test_damage_is_seen_where_the_database_asks_to_have_it_read_as_nothing(server: RestoredServer):
    with server.connect() as connection:
        # A copy whose pages were never in the server's memory.
        connection.execute(f"CREATE DATABASE torn TEMPLATE {DATABASE} STRATEGY file_copy")
        connection.execute("ALTER DATABASE torn SET zero_damaged_pages = on")
    with server.connect("torn") as connection:
        path = one_row(connection, "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('piece')")
    with Path(*path).open("r+b") as file:
        file.write(bytes(range(256)))
    try:
        with pytest.raises(RestoreFailed, match="invalid page in block 0"):
            count_rows(server.server("torn"))
    finally:
        with server.connect() as connection:
            connection.execute("DROP DATABASE torn WITH (FORCE)")


@pytest.mark.parametrize("everywhere", [False, True])
def test_pg_amcheck_does_not_wait_for_what_was_prepared_and_never_committed(server: RestoredServer, everywhere: bool):
    with server.connect(DATABASE) as connection:
        connection.execute("BEGIN; INSERT INTO piece VALUES (0, 'in doubt'); PREPARE TRANSACTION 'it''s in doubt'")
    try:
        check = amcheck(server.server(None if everywhere else DATABASE), everywhere=everywhere)
    finally:
        with server.connect(DATABASE) as connection:
            connection.execute("DROP EXTENSION IF EXISTS amcheck")

    assert check.result is Result.PASSED, check.detail
