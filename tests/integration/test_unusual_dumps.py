"""A dump of a source unlike others comes back, or is refused by what is the matter, in words without rows of it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from pv_backup.services.export_sources import DumpSource, GlobalsSource
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.sandbox import Sandbox
from tests.integration.backup_world import backup_world
from tests.integration.dump_world import backed_up, chosen, refusal, restore_of
from tests.support.clusters import SourceCluster
from tests.support.servers import SourceDatabase, TestStack

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-INV-08")]


@pytest.fixture
def staging(open_path: Path) -> Path:
    return open_path


def test_a_row_that_cannot_be_copied_is_told_by_its_place_and_not_by_its_content(
    stack: TestStack, source_db: SourceDatabase, staging: Path
):
    with psycopg.connect(source_db.superuser_dsn) as connection:
        connection.execute("CREATE TABLE person (name text)")
        connection.execute("INSERT INTO person VALUES ('a name\n  that is nobody''s business')")
        # What a dump may hold and a restoration refuses: a check that was added to rows that break it.
        connection.execute("ALTER TABLE person ADD CONSTRAINT short CHECK (length(name) < 5) NOT VALID")
        connection.execute("UPDATE pg_constraint SET convalidated = true WHERE conname = 'short'")
    with backed_up(stack, source_db) as world:
        refused = refusal(world, staging, *chosen(world))
    assert 'violates check constraint "short"' in refused.what
    assert "COPY person, line 1" in refused.what
    assert "business" not in str(refused)


def test_an_extension_that_this_machine_lacks_is_named(stack: TestStack, source_db: SourceDatabase, staging: Path):
    with psycopg.connect(source_db.superuser_dsn) as connection:
        # As if the source had it: pg_dump reads no more than this row.
        connection.execute("INSERT INTO pg_extension VALUES (99999, 'lacking', 10, 2200, true, '1.0', NULL, NULL)")
    with backed_up(stack, source_db) as world:
        refused = refusal(world, staging, *chosen(world))
    assert 'extension "lacking" is not available' in refused.what
    assert "install that extension's package" in refused.remedy


@pytest.mark.parametrize("name", ["postgres", "evidence"])
def test_a_database_called_postgres_or_in_a_tablespace_of_its_own_comes_back(
    stack: TestStack, source_cluster: SourceCluster, staging: Path, name: str
):
    source_cluster.add_tablespace("apart")
    for statement in ("CREATE DATABASE evidence TABLESPACE apart", "CREATE TABLE in_postgres (n int)"):
        source_cluster.sql(statement)
    server = Server({**source_cluster.server.params, "dbname": name})
    with backup_world(stack, source_cluster, stack.new_journal(), stack.new_bucket()) as world:
        world.back_up(GlobalsSource(server=server))
        world.back_up(DumpSource(server=server))
        with (
            Sandbox(staging) as sandbox,
            restore_of(world, sandbox).restored(*chosen(world)) as (restored, _),
            restored.connect(name) as connection,
        ):
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            assert tables.fetchall() == ([("in_postgres",)] if name == "postgres" else [])
