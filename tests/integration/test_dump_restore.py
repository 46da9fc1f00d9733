"""A published dump comes back as it was, with its owners and grants, in a server that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from dev.provisioning.databases import drop_database
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import IntegrityError, NotPublished, RestoreFailed, TargetRefused
from pv_backup.services.export_sources import DumpSource, GlobalsSource
from pv_backup.services.manifest import Manifest
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.dump import DumpRestore
from pv_backup.services.restoration.dump_choice import choose_dump
from pv_backup.services.restoration.sandbox import Sandbox
from tests.integration.backup_world import BackupWorld, backup_world
from tests.support.servers import TestStack

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-INV-08")]

_SCHEMA = """
CREATE SCHEMA archive AUTHORIZATION {owner};
CREATE TABLE archive.document (id bigserial PRIMARY KEY, sealed bytea NOT NULL, title text NOT NULL);
ALTER TABLE archive.document OWNER TO {owner};
GRANT SELECT ON archive.document TO {reader};
CREATE VIEW archive.titles AS SELECT title FROM archive.document;
CREATE MATERIALIZED VIEW archive.count AS SELECT count(*) FROM archive.document;
CREATE EXTENSION pg_trgm;
CREATE INDEX ON archive.document USING gin (title gin_trgm_ops);
INSERT INTO archive.document (sealed, title)
    SELECT decode(repeat(md5(n::text), 64), 'hex'), 'evidence ' || n FROM generate_series(1, 2000) AS n;
SELECT lo_from_bytea(0, 'a large object');
"""
"""What pg_dump and pg_restore treat each in its own way."""


@pytest.fixture(scope="module")
def world(stack: TestStack) -> Iterator[BackupWorld]:
    """A dump and its roles, published; owner and reader are roles of this module's own."""
    source, journal = stack.new_source(), stack.new_journal()
    owner, reader = (f"{kind}_{source.name}" for kind in ("owner", "reader"))
    with psycopg.connect(source.superuser_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {owner} NOLOGIN; CREATE ROLE {reader} LOGIN IN ROLE pg_monitor")
        connection.execute(_SCHEMA.format(owner=owner, reader=reader))
        connection.execute(f"ALTER DATABASE {source.name} SET default_transaction_read_only = on")
    try:
        with backup_world(stack, source, journal, stack.new_bucket()) as world:
            world.back_up(GlobalsSource(server=world.server))
            world.back_up(DumpSource(server=world.server))
            yield world
    finally:
        drop_database(stack.postgres, source.name)
        with psycopg.connect(stack.postgres.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP ROLE {owner}, {reader}")


@pytest.fixture
def staging(open_path: Path) -> Path:
    return open_path


def chosen(world: BackupWorld) -> tuple[Manifest, Manifest]:
    dump, roles = choose_dump(published_backups(world.bench.store), None)
    assert roles is not None
    return dump, roles


def restore_of(world: BackupWorld, sandbox: Sandbox) -> DumpRestore:
    return DumpRestore(store=world.bench.store, keys=world.bench.keys, tools=Server({}), sandbox=sandbox)


def test_rows_owners_grants_and_settings_come_back(world: BackupWorld, staging: Path):
    dump, roles = chosen(world)
    with Sandbox(staging) as sandbox, restore_of(world, sandbox).restored(dump, roles) as (server, restored):
        assert (restored.database, restored.roles) == (world.source.name, roles)
        assert restored.seconds > 0
        with server.connect(restored.database) as connection:

            def ask(query: str):
                return connection.execute(query).fetchall()

            assert ask("SELECT count(*), max(id) FROM archive.document") == [(2000, 2000)]
            assert ask("SELECT tableowner FROM pg_tables WHERE schemaname = 'archive'") == [
                (f"owner_{world.source.name}",)
            ]
            assert ask(f"SELECT has_table_privilege('reader_{world.source.name}', 'archive.document', 'SELECT')") == [
                (True,)
            ]
            assert ask("SHOW default_transaction_read_only") == [("on",)]
            assert ask("SELECT lo_get(oid) FROM pg_largeobject_metadata") == [(b"a large object",)]
            assert ask("SELECT count FROM archive.count") == [(2000,)]
    assert list(staging.iterdir()) == []
