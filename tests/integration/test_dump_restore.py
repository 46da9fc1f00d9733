"""A published dump comes back as it was, with its owners and grants, in a server that leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dev.provisioning.databases import drop_database
from pv_backup.services import verification
from pv_backup.services.errors import (
    ArtefactDamaged,
    FailClosedError,
    IntegrityError,
    NotPublished,
    ReadBackMismatch,
    RestoreFailed,
    TargetRefused,
)
from pv_backup.services.manifest import Manifest
from pv_backup.services.restoration import tools
from pv_backup.services.restoration.dump_choice import choose_dump
from pv_backup.services.restoration.sandbox import Sandbox
from tests.integration.backup_world import MEBIBYTE, BackupWorld
from tests.integration.dump_world import backed_up, chosen, refusal, restore_of
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
    """Owner and reader are roles of this module's own, on a server that other modules use too."""
    source = stack.new_source()
    owner, reader = (f"{kind}_{source.name}" for kind in ("owner", "reader"))
    with psycopg.connect(source.superuser_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {owner} NOLOGIN; CREATE ROLE {reader} LOGIN IN ROLE pg_monitor")
        connection.execute(_SCHEMA.format(owner=owner, reader=reader))
        connection.execute(f"ALTER DATABASE {source.name} SET default_transaction_read_only = on")
    try:
        with backed_up(stack, source) as world:
            yield world
    finally:
        stack.postgres.start()
        drop_database(stack.postgres, source.name)
        with psycopg.connect(stack.postgres.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP ROLE {owner}, {reader}")


@pytest.fixture
def staging(open_path: Path) -> Path:
    return open_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that are started from now on."""
    names: list[str] = []
    start = tools.start

    def heard(command: list[str], **options: Any) -> Any:
        names.append(Path(command[0]).name)
        return start(command, **options)

    monkeypatch.setattr(tools, "start", heard)
    return names


@contextmanager
def tampered(world: BackupWorld, key: str, body: Callable[[bytes], bytes]) -> Iterator[None]:
    """An artefact with other bytes in its place."""
    whole, metadata = world.bucket.body(key), world.bucket.head(key)["Metadata"]
    world.bucket.put(key, body(whole), metadata)
    try:
        yield
    finally:
        world.bucket.put(key, whole, metadata)


def flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


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
            # Our own session is not bound by it.
            assert ask("SELECT setconfig FROM pg_db_role_setting WHERE setrole = 0") == [
                (["default_transaction_read_only=on"],)
            ]
            assert ask("SELECT lo_get(oid) FROM pg_largeobject_metadata") == [(b"a large object",)]
            assert ask("SELECT count FROM archive.count") == [(2000,)]
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize("damage", [flipped, lambda body: body[:-1]], ids=["flipped", "cut"])
@pytest.mark.parametrize("which", [0, 1], ids=["dump", "roles"])
def test_of_a_damaged_artefact_no_tool_sees_a_byte(
    world: BackupWorld, staging: Path, started: list[str], which: int, damage: Callable[[bytes], bytes]
):
    pair = chosen(world)
    with tampered(world, pair[which].key, damage):
        refused = refusal(world, staging, *pair)
    assert isinstance(refused, IntegrityError)
    assert pair[which].key in refused.what or isinstance(refused, ArtefactDamaged)
    assert started == []


@pytest.fixture
def replacing(world: BackupWorld, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Right after its verification, another artefact lies in the dump's place."""
    dump, roles = chosen(world)
    verify = verification.verify_object

    def verify_then_replace(*args: Any) -> None:
        verify(*args)
        if args[2] == dump.key:
            world.bucket.put(dump.key, world.bucket.body(roles.key), world.bucket.head(roles.key)["Metadata"])

    monkeypatch.setattr("pv_backup.services.restoration.content.verify_object", verify_then_replace)
    with tampered(world, dump.key, lambda body: body):
        yield


@pytest.mark.usefixtures("replacing")
def test_what_was_verified_is_restored_whatever_lies_in_its_place_by_then(world: BackupWorld, staging: Path):
    with (
        Sandbox(staging) as sandbox,
        restore_of(world, sandbox).restored(*chosen(world)) as (server, restored),
        server.connect(restored.database) as connection,
    ):
        assert connection.execute("SELECT count(*) FROM archive.document").fetchone() == (2000,)
    assert list(staging.iterdir()) == []


@pytest.mark.usefixtures("replacing")
def test_without_room_for_a_copy_it_is_fetched_again_and_must_be_the_same(
    world: BackupWorld, staging: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pv_backup.services.restoration.dump._EMPTY_CLUSTER_BYTES", 0)
    free = shutil.disk_usage(staging)._replace(free=MEBIBYTE)
    monkeypatch.setattr("pv_backup.services.restoration.content.shutil.disk_usage", lambda directory: free)
    refused = refusal(world, staging, *chosen(world))
    assert isinstance(refused, ReadBackMismatch)
    assert "was replaced between its verification and its reading" in refused.what
    assert "pg_restore" not in started


def test_a_vault_that_is_sealed_ends_it_before_anything_starts(world: BackupWorld, staging: Path, started: list[str]):
    pair = chosen(world)
    world.stack.vault.seal()
    assert isinstance(refusal(world, staging, *pair), FailClosedError)
    assert started == []


def test_a_missing_role_is_told_in_pg_restores_words_with_a_remedy(world: BackupWorld, staging: Path):
    dump, _ = chosen(world)
    refused = refusal(world, staging, dump, None)
    assert isinstance(refused, RestoreFailed)
    assert f"pg_restore could not restore {dump.key}" in refused.what
    assert 'role "postgres" does not exist' in refused.what
    assert "globals" in refused.remedy


def test_what_a_role_file_says_wrong_ends_the_restoration(world: BackupWorld, staging: Path):
    dump, _ = chosen(world)
    refused = refusal(world, staging, dump, dump)
    assert "psql could not restore the roles" in refused.what


def test_the_dump_is_chosen_by_when_it_was_exported(world: BackupWorld):
    dump, roles = chosen(world)

    def of(base: Manifest, day: str, exported_at: str) -> Manifest:
        key = f"{base.key.rpartition('_')[0]}_{day}.enc"
        return base.model_copy(update={"key": key, "exported_at": exported_at})

    # The second day's dump was relaunched late, and the third day's roles come before it.
    known = [
        of(roles, "20260401", "2026-04-01T01:00:00.000000Z"),
        of(dump, "20260401", "2026-04-01T01:00:05.000000Z"),
        of(roles, "20260402", "2026-04-02T01:00:00.000000Z"),
        of(roles, "20260403", "2026-04-03T01:00:00.000000Z"),
        of(dump, "20260402", "2026-04-03T00:30:00.000000Z"),
        of(dump, "20260403", "2026-04-03T01:00:05.000000Z"),
    ]

    def days(moment: str | None) -> tuple[str, str | None]:
        chosen_dump, chosen_roles = choose_dump(reversed(known), moment and datetime.fromisoformat(moment))
        return chosen_dump.key[-8:-4], chosen_roles and chosen_roles.key[-8:-4]

    assert days(None) == ("0403", "0403")
    assert days("2026-04-03T01:00:05Z") == ("0403", "0403")
    assert days("2026-04-03T01:00:04.999999Z") == ("0402", "0402")
    assert days("2026-04-02T23:00:00Z") == ("0401", "0401")
    known[2:3] = []
    assert days("2026-04-03T00:59:00Z") == ("0402", "0401")
    assert days("2026-04-03T01:00:01Z") == ("0402", "0403")
    known[:1] = []
    assert days("2026-04-02T23:00:00Z") == ("0401", None)
    with pytest.raises(TargetRefused, match=r"is before the oldest dump in the bucket, .*backup_20260401\.enc"):
        days("2026-04-01T01:00:00Z")
    with pytest.raises(NotPublished, match="no published dump"):
        choose_dump([each for each in known if each.backup_type == "globals"], None)
