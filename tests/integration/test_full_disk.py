"""A staging disk that is too small ends a drill by that name, with its setting, and wherever the room runs out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.drill_errors import StagingFull
from pv_backup.services.errors import RestoreFailed
from pv_backup.services.export_sources import DumpSource, GlobalsSource
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.cluster import ClusterRestore
from pv_backup.services.restoration.dump import DumpRestore
from pv_backup.services.restoration.dump_choice import choose_dump
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.tools import make_private
from pv_backup.services.restoration.unpacking import unpack_cluster
from tests.integration.wal_world import WalWorld, wal_world
from tests.support.clusters import ClusterTemplate
from tests.support.servers import TestStack

pytestmark = [
    pytest.mark.case("TC-NOM-04", "TC-ERR-07"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]

# Rows that PostgreSQL neither compresses nor moves out of line, and zstd shrinks to nothing.
ROWS, ROW_BYTES = 30_000, 1900
MEBIBYTE = 1024 * 1024

Disk = Callable[[float], Path]


@pytest.fixture(scope="module")
def world(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[WalWorld]:
    """A base backup, then as much again: in WAL, and in a dump."""
    cluster = cluster_template.copied()
    try:
        with wal_world(stack, cluster, stack.new_journal(), stack.new_bucket()) as world:
            world.backup.back_up(BasebackupSource(server=cluster.server))
            cluster.sql("CREATE TABLE ledger (n int, entry text)")
            cluster.sql(f"INSERT INTO ledger SELECT n, repeat('x', {ROW_BYTES}) FROM generate_series(1, {ROWS}) AS n")
            world.backup.back_up(GlobalsSource(server=cluster.server))
            world.backup.back_up(DumpSource(server=cluster.server))
            cluster.wait_until_received(cluster.switch_wal())
            assert world.run(closer=None).problems == []
            yield world
    finally:
        cluster.discard()


def dump_in(world: WalWorld, sandbox: Sandbox) -> AbstractContextManager[Any]:
    store, keys = world.bench.store, world.bench.keys
    restore = DumpRestore(store=store, keys=keys, tools=Server({}), sandbox=sandbox)
    return restore.restored(*choose_dump(published_backups(store), None))


def cluster_in(world: WalWorld, sandbox: Sandbox) -> AbstractContextManager[Any]:
    store, keys = world.bench.store, world.bench.keys
    restore = ClusterRestore(store=store, keys=keys, tools=Server({}), directory=sandbox.data, sandbox=sandbox)
    return restore.recovered(RecoveryTarget())


@contextmanager
def refused(disk: Path) -> Iterator[list[StagingFull]]:
    """The one error that must come, and nothing left on the disk."""
    found: list[StagingFull] = []
    with pytest.raises(RestoreFailed) as caught:
        yield found
    assert isinstance(caught.value, StagingFull), caught.value
    assert "PV_BACKUP_STAGING_DIRECTORY" in caught.value.remedy
    assert str(disk) in caught.value.remedy
    assert list(disk.iterdir()) == []
    found.append(caught.value)


@pytest.mark.parametrize("restoration", [dump_in, cluster_in])
def test_what_cannot_fit_is_refused_before_anything_is_written(world: WalWorld, disk: Disk, restoration):
    small = disk(16)
    with refused(small) as errors, Sandbox(small) as sandbox, restoration(world, sandbox):
        pass
    assert "needs at least" in errors[0].what
    assert "MiB free" in errors[0].what


def test_a_dump_that_outgrows_the_disk_is_told_as_such(world: WalWorld, disk: Disk):
    small = disk(135)
    with refused(small) as errors, Sandbox(small) as sandbox, dump_in(world, sandbox):
        pass
    assert "pg_restore could not restore" in errors[0].what


def test_a_recovery_that_outgrows_the_disk_is_told_as_such(world: WalWorld, disk: Disk):
    (base,) = (backup for backup in published_backups(world.bench.store) if backup.backup_type == "basebackup")
    small = disk(base.exported_bytes / MEBIBYTE + 16)
    with refused(small) as errors, Sandbox(small) as sandbox, cluster_in(world, sandbox):
        pass
    assert "PostgreSQL ended before it answered" in errors[0].what or "could not be written to" in errors[0].what


def test_a_disk_that_fills_while_tar_unpacks_is_told_as_such(world: WalWorld, disk: Disk):
    (base,) = (backup for backup in published_backups(world.bench.store) if backup.backup_type == "basebackup")
    small = disk(16)
    with refused(small) as errors, Sandbox(small) as sandbox:
        make_private(sandbox.data, sandbox.user)
        runner = sandbox.runner(Server({}))
        unpack_cluster(world.bench.store, world.bench.keys, base, sandbox.data, runner=runner)
    assert "tar could not unpack" in errors[0].what
    assert "No space left on device" in errors[0].what
