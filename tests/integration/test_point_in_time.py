"""The proof that it is enough: the source is destroyed, and bucket and key bring it back to any commit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dev.provisioning.keys import SSE_KEY
from pv_backup.services.errors import (
    ConfigurationError,
    IntegrityError,
    NotPublished,
    RefusedError,
    TargetAhead,
    TargetRefused,
    WalGap,
)
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.cluster import ClusterRestore
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.target import RecoveryTarget
from tests.integration.command_line import CommandLine
from tests.integration.lost_world import COMMITS_A_STRETCH, RESTORE_POINT, Lost, lost_source
from tests.support.clusters import ClusterTemplate
from tests.support.restored_server import RestoredServer
from tests.support.servers import TestStack

pytestmark = [pytest.mark.case("TC-NOM-02"), pytest.mark.case("TC-NOM-03"), pytest.mark.case("TC-NOM-04")]


@pytest.fixture(scope="module")
def lost(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Lost]:
    with lost_source(stack, cluster_template) as lost:
        yield lost


def test_the_last_shipped_commit_is_reached_across_the_promotion(lost: Lost, open_path: Path):
    entries, restored = lost.entries_at(RecoveryTarget(), open_path)

    assert entries == [commit.entry for commit in lost.ledger]
    assert restored.timeline == 3
    assert restored.last_commit is not None
    assert lost.ledger[-2].at < restored.last_commit < lost.ledger[-1].at
    assert [path.name for path in open_path.iterdir() if path.name.startswith("pv-backup")] == []


@pytest.mark.parametrize("place", [COMMITS_A_STRETCH + 3, 2 * COMMITS_A_STRETCH + 7], ids=["before", "after"])
def test_a_second_in_between_is_reached_to_the_row(lost: Lost, open_path: Path, place: int):
    entries, _ = lost.entries_at(RecoveryTarget(time=lost.ledger[place].at), open_path)

    assert entries == [commit.entry for commit in lost.ledger[: place + 1]]


def test_a_byte_of_wal_is_reached(lost: Lost, open_path: Path):
    place = 2 * COMMITS_A_STRETCH + 2

    entries, _ = lost.entries_at(RecoveryTarget(lsn=lost.ledger[place].lsn), open_path)

    assert entries == [commit.entry for commit in lost.ledger[: place + 1]]


def test_a_restore_point_is_reached(lost: Lost, open_path: Path):
    entries, _ = lost.entries_at(RecoveryTarget(name=RESTORE_POINT), open_path)

    assert entries == [commit.entry for commit in lost.ledger[: lost.named]]


def test_a_drills_server_answers_while_its_context_is_open_and_leaves_nothing(lost: Lost, open_path: Path):
    bench, at = lost.world.bench, lost.ledger[COMMITS_A_STRETCH + 3].at
    with Sandbox(open_path) as sandbox:
        restore = ClusterRestore(
            store=bench.store, keys=bench.keys, tools=Server({}), directory=sandbox.data, sandbox=sandbox
        )
        route = restore.plan(RecoveryTarget(time=at))
        with restore.recovered(route.target, route=route) as (server, restored):
            with server.server("postgres").connect() as connection:
                rows = connection.execute("SELECT count(*) FROM ledger").fetchone()
            assert [path.name for path in sandbox.path.iterdir() if path.name.startswith("wal-")] == []
    assert rows == (COMMITS_A_STRETCH + 4,)
    assert restored.reached_at <= at
    assert (restored.superuser, restored.wal_files > 0) == ("postgres", True)
    assert list(open_path.iterdir()) == []


def test_the_very_last_commit_can_be_named_by_its_own_time(lost: Lost, open_path: Path):
    _, restored = lost.entries_at(RecoveryTarget(), open_path)

    assert lost.restore(open_path / "again").plan(RecoveryTarget(time=restored.last_commit)).target == RecoveryTarget()


def test_a_time_after_the_last_shipped_commit_is_refused_before_anything_starts(lost: Lost, open_path: Path):
    refusal = lost.refusal(RecoveryTarget(time=lost.ledger[-1].at + timedelta(seconds=1)), open_path)

    assert isinstance(refusal, TargetAhead)
    assert "the last shipped commit was made at" in refusal.what
    assert not (open_path / "data").exists()


def test_a_byte_past_the_shipped_wal_is_refused_before_anything_starts(lost: Lost, open_path: Path):
    refusal = lost.refusal(RecoveryTarget(lsn=lost.ledger[-1].lsn + 64 * 1024 * 1024), open_path)

    assert isinstance(refusal, TargetAhead)
    assert "WAL is shipped up to LSN" in refusal.what
    assert not (open_path / "data").exists()


def test_a_time_before_the_first_base_backup_is_refused_naming_it(lost: Lost, open_path: Path):
    refusal = lost.refusal(RecoveryTarget(time=lost.ledger[0].at), open_path)

    assert isinstance(refusal, TargetRefused)
    assert not isinstance(refusal, TargetAhead)
    assert "basebackup_20260329.enc" in refusal.what


def test_a_restore_point_that_was_never_made_is_no_success(lost: Lost, open_path: Path):
    refusal = lost.refusal(RecoveryTarget(name="never made"), open_path)

    assert "recovery ended before configured recovery target was reached" in refusal.what


def test_a_missing_file_is_refused_by_name_and_the_time_before_it_is_reached(lost: Lost, open_path: Path):
    first, hole = lost.needed()[:2]
    with lost.without(hole):
        refusal = lost.refusal(RecoveryTarget(), open_path)

        assert isinstance(refusal, WalGap)
        assert hole in refusal.what
        before = lost.restore(open_path / "data").plan(RecoveryTarget(time=lost.ledger[COMMITS_A_STRETCH].at))
        assert hole not in before.files
        assert first in before.files


def test_a_swapped_file_ends_the_restoration_by_name(lost: Lost, open_path: Path):
    first, second = lost.needed()[:2]
    with lost.without(second, instead=first):
        refusal = lost.refusal(RecoveryTarget(), open_path)

    assert isinstance(refusal, IntegrityError)
    assert second in refusal.what


def test_a_directory_with_something_in_it_is_left_alone(lost: Lost, open_path: Path):
    (open_path / "data").mkdir()
    (open_path / "data" / "PG_VERSION").write_text("15\n")

    refusal = lost.refusal(RecoveryTarget(), open_path)

    assert isinstance(refusal, RefusedError)
    assert [path.name for path in (open_path / "data").iterdir()] == ["PG_VERSION"]


def test_an_empty_bucket_is_told_as_such(lost: Lost, open_path: Path, stack: TestStack):
    bucket = stack.new_bucket()
    empty = ObjectStore(client=bucket.user, bucket=bucket.name, kms_key_id=SSE_KEY, timeout_s=60)
    restore = ClusterRestore(store=empty, keys=lost.world.bench.keys, tools=Server({}), directory=open_path / "data")

    with pytest.raises(NotPublished, match="no published base backup"):
        restore.run(RecoveryTarget())


def test_one_command_brings_the_cluster_back(lost: Lost, open_path: Path):
    command = CommandLine(lost.world.backup)

    listed = command("list")
    restored = command("restore", open_path / "data", "--latest")

    assert "2026/03/basebackup_20260329.enc" in listed.stdout.decode()
    assert restored.returncode == 0, restored.stderr.decode()
    assert "target       the end of the shipped WAL" in restored.stdout.decode()
    with RestoredServer(open_path / "data") as server:
        assert server.sql("SELECT count(*) FROM ledger") == [(len(lost.ledger),)]


def test_the_command_says_what_is_missing_and_exits_with_it(lost: Lost, open_path: Path):
    command, hole = CommandLine(lost.world.backup), lost.needed()[1]

    late = command("restore", open_path / "data", "--target-time", "2199-01-01T00:00:00Z")
    no_zone = command("restore", open_path / "data", "--target-time", "2026-11-22T03:15:00")
    with lost.without(hole):
        missing = command("restore", open_path / "data", "--latest")

    assert (late.returncode, no_zone.returncode, missing.returncode) == (1, 1, 2)
    assert b"the last shipped commit was made at" in late.stderr
    assert b"no time with a zone" in no_zone.stderr
    assert hole.encode() in missing.stderr
    assert not (open_path / "data").exists()


def test_the_wal_that_the_manifest_asks_for_is_in_the_bucket(lost: Lost):
    (manifest,) = published_backups(lost.world.bench.store)

    assert manifest.wal_files
    assert set(manifest.wal_files) <= set(lost.world.shipped())


@pytest.mark.skipif(os.geteuid() != 0, reason="tools run as ourselves: no directory of ours is closed to them")
def test_a_directory_that_postgresql_cannot_get_to_is_refused_before_anything_is_downloaded(lost: Lost, tmp_path: Path):
    refusal = lost.refusal(RecoveryTarget(), tmp_path)

    assert isinstance(refusal, ConfigurationError)
    assert f"can't get to {tmp_path}/data: a directory on the way is closed to it" in refusal.what
    assert "chmod o+x" in refusal.remedy
    assert list((tmp_path / "data").iterdir()) == []
