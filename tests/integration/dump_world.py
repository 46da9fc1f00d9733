"""What the tests of restored dumps share: a dump and its roles in the bucket, and restorations of them in a sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pv_backup.services.errors import PvBackupError
from pv_backup.services.export_sources import DumpSource, GlobalsSource
from pv_backup.services.manifest import Manifest
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.dump import DumpRestore
from pv_backup.services.restoration.dump_choice import choose_dump
from pv_backup.services.restoration.sandbox import Sandbox
from tests.integration.backup_world import BackupWorld, backup_world
from tests.support.servers import Source, TestStack


@contextmanager
def backed_up(stack: TestStack, source: Source) -> Iterator[BackupWorld]:
    """A dump and its roles, published."""
    with backup_world(stack, source, stack.new_journal(), stack.new_bucket()) as world:
        world.back_up(GlobalsSource(server=world.server))
        world.back_up(DumpSource(server=world.server))
        yield world


def refusal(world: BackupWorld, staging: Path, dump: Manifest, roles: Manifest | None) -> PvBackupError:
    """How a restoration fails; it leaves nothing."""
    with (
        pytest.raises(PvBackupError) as refused,
        Sandbox(staging) as sandbox,
        restore_of(world, sandbox).restored(dump, roles),
    ):
        pass
    assert list(staging.iterdir()) == []
    return refused.value


def chosen(world: BackupWorld) -> tuple[Manifest, Manifest]:
    dump, roles = choose_dump(published_backups(world.bench.store), None)
    assert roles is not None
    return dump, roles


def restore_of(world: BackupWorld, sandbox: Sandbox) -> DumpRestore:
    return DumpRestore(store=world.bench.store, keys=world.bench.keys, tools=Server({}), sandbox=sandbox)
