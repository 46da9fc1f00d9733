"""An export leaves a whole object or nothing (SPEC F1.2 to F1.4), whoever of its partners fails."""

from __future__ import annotations

import time
from dataclasses import replace

import psycopg
import pytest

from pv_backup.services.errors import AttemptPublished, DayClosed, ExportFailed, FailClosedError, TaskStopped
from pv_backup.services.export_sources import DumpSource
from pv_backup.services.exporting import ArtefactExport
from pv_backup.services.manifest import stored_header
from tests.integration.backup_world import KEY, MEBIBYTE, backup_world
from tests.support.processes import children_named


@pytest.fixture
def world(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket, part_size_mb=5) as world:
        yield world


def kill_pg_dump():
    (tool,) = children_named("pg_dump", recursive=True)
    tool.kill()


@pytest.mark.case("TC-ERR-01")
def test_a_pg_dump_killed_within_the_first_part_leaves_nothing_and_the_next_try_succeeds(world):
    world.fill(4)
    attempt = world.open()
    with pytest.raises(ExportFailed, match="pg_dump was ended by signal 9"):
        world.export(attempt, world.watched(kill_pg_dump, after_bytes=MEBIBYTE))
    assert world.bucket.is_untouched()
    world.export(attempt)
    world.verify(attempt)


@pytest.mark.case("TC-ERR-01")
def test_a_pg_dump_killed_after_parts_were_stored_leaves_no_open_upload(world):
    world.fill(12)
    open_before = []

    def kill_once_a_part_is_on_its_way():
        deadline = time.monotonic() + 60
        while not open_before and time.monotonic() < deadline:
            open_before.extend(world.bucket.open_uploads())
        kill_pg_dump()

    with pytest.raises(ExportFailed, match="pg_dump was ended by signal 9"):
        world.export(world.open(), world.watched(kill_once_a_part_is_on_its_way, after_bytes=20 * MEBIBYTE))
    assert open_before == [KEY]
    assert world.bucket.is_untouched()
    assert world.journal.row()["hash_sha3_256"] is None


@pytest.mark.case("TC-ERR-01")
def test_a_dump_that_the_server_ends_leaves_nothing_and_repeats_the_tools_words(world):
    world.fill(16)  # more than the buffers of a connection hold, or pg_dump has it all before its session ends

    def end_the_session():
        with psycopg.connect(world.source.superuser_dsn) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'pg_dump' AND datname = current_database()"
            ).fetchall()
        assert len(ended) == 1

    with pytest.raises(ExportFailed, match=r"pg_dump ended with status 1: .*terminat"):
        world.export(world.open(), world.watched(end_the_session))
    assert world.bucket.is_untouched()


@pytest.mark.case("TC-ERR-01")
@pytest.mark.parametrize("wrong", [{"password": "canary-of-the-password"}, {"port": "1"}], ids=["password", "port"])
def test_a_source_that_lets_nobody_in_is_named_without_its_password(world, wrong):
    server = replace(world.server, params={**world.server.params, **wrong})
    with pytest.raises(ExportFailed, match=f"pv_backup_dump@127.0.0.1:.*/{world.source.name}") as caught:
        world.export(world.open(), DumpSource(server=server))
    told = str(caught.value) + repr(caught.value.__cause__) + repr(server)
    assert server.params["password"] not in told
    assert world.bucket.is_untouched()


@pytest.mark.case("TC-ERR-01")
def test_a_stopped_task_ends_its_tool_and_leaves_nothing(world):
    world.fill(6)
    held, keeper = world.bench.keep_lease(world.open().backup_id)
    source = world.watched(lambda: export.cancel(), after_bytes=2 * MEBIBYTE)
    export = ArtefactExport(bench=world.bench, attempt=held, source=source, keeper=keeper)
    with keeper, pytest.raises((TaskStopped, ExportFailed)):
        export.run()
    assert world.bucket.is_untouched()
    assert children_named("pg_dump") == []


@pytest.mark.case("TC-ERR-02", "TC-INV-03")
def test_a_sealed_vault_stops_the_export_before_it_starts(world):
    attempt = world.open()
    source = world.watched(lambda: None)
    world.stack.vault.seal()
    began = time.monotonic()
    with pytest.raises(FailClosedError, match="sealed") as caught:
        world.export(attempt, source)
    assert time.monotonic() - began < 30
    assert caught.value.code == "ERR-47-02"
    assert not source.started
    world.stack.vault.unseal()
    assert world.bucket.is_untouched()


@pytest.mark.case("TC-ERR-02", "TC-INV-03")
def test_an_unreachable_vault_stops_the_export_before_it_starts(world):
    source = world.watched(lambda: None)
    attempt = world.open()
    world.stack.vault.stop()
    began = time.monotonic()
    with pytest.raises(FailClosedError, match="Vault is unreachable"):
        world.export(attempt, source)
    assert time.monotonic() - began < 30
    assert not source.started
    world.stack.vault.start()
    assert world.bucket.is_untouched()


@pytest.mark.case("TC-INV-02")
def test_no_two_artefacts_share_a_key_or_an_iv_not_even_two_tries_of_one_attempt(world):
    attempt = world.open()
    seen = []
    for _ in range(3):
        world.export(attempt)
        header = stored_header(world.bench.store, KEY)
        assert header.context.backup_id == attempt.backup_id
        dek = bytes(world.bench.keys.unwrap(header.context.wrapped_dek))
        seen.append((dek, header.iv, header.context.wrapped_dek))
    for values in zip(*seen, strict=True):
        assert len(set(values)) == len(seen)
    assert world.journal.row()["iv"] == seen[-1][1].hex()


@pytest.mark.case("TC-NOM-01")
def test_an_unpublished_remnant_is_replaced_but_never_a_published_backup(world):
    world.bucket.put(KEY, b"what an earlier attempt left")
    attempt = world.open()
    world.export(attempt)
    world.export(attempt)
    world.verify(attempt)
    published = world.publish(attempt)
    with pytest.raises(AttemptPublished, match=f"{attempt.backup_id} is published already"):
        world.export(attempt)
    world.journal.sql("DELETE FROM pv_backup.backup_executions")
    unaware = world.open(run_id="of a journal that was lost")
    with pytest.raises(DayClosed, match=f"holds the published backup {attempt.backup_id}"):
        world.export(unaware)
    assert stored_header(world.bench.store, KEY).tag.hex() == published.header_tag
