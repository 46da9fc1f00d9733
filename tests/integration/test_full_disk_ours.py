"""A staging disk that is full when we write something ourselves is told as such, too."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest

from pv_backup.services.drill_errors import StagingFull
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.commit_clock import WalCommitClock
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.wal import SegmentName

pytestmark = [
    pytest.mark.case("TC-NOM-04", "TC-ERR-07"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]


class Archive:
    """Writes as one does that has the segment."""

    def fetch(self, name: str, path: Path) -> None:
        path.write_bytes(bytes(1024 * 1024))


@pytest.fixture
def full(disk: Callable[[float], Path]) -> Iterator[Sandbox]:
    """A sandbox in which not a byte more can be written."""
    small = disk(1)
    with Sandbox(small) as sandbox:
        with suppress(OSError), (sandbox.path / "filling").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        yield sandbox
    assert list(small.iterdir()) == []


@contextmanager
def told() -> Iterator[None]:
    with pytest.raises(StagingFull, match=r"could not be written to .*: No space left on device") as caught:
        yield
    assert "PV_BACKUP_STAGING_DIRECTORY" in caught.value.remedy


def test_a_tools_name(full: Sandbox):
    with subprocess.Popen(["sleep", "3"]) as tool:
        with told():
            full.watch(tool.pid)
        tool.kill()


def test_a_servers_configuration(full: Sandbox):
    server = full.new_server(Server({}), data=full.data, settings={})
    with told(), server:
        pass


def test_the_wal_that_the_last_commit_is_looked_for_in(full: Sandbox):
    archive = cast("WalArchive", Archive())
    segment = SegmentName.parse("000000010000000000000001")
    assert segment
    with told():
        WalCommitClock(archive, tools=Server({}), staging=full.path, place=full.place)([segment])
