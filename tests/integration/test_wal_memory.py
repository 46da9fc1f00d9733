"""A backlog of any size drains in the same memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.killing import Worker, wal_worker
from tests.integration.wal_worker import Order
from tests.integration.wal_world import MEBIBYTE, RecordedWal, ShippingWorld, numbered, shipping_world

pytestmark = pytest.mark.case("TC-NOM-02")

PARALLELISM = 4
# What a file in work holds, in files: its compressed bytes, its object's, their copy on the way to the socket, and
# what the allocator keeps of the file before it.
COPIES = 4
# Libraries that the first file loads, and fragments: measured, 2000 files of 1 MiB peak 58 MiB above 40 of them, while
# Python's own heap holds 0.4 KiB more a file. A run ends after five minutes, and its process with it.
WORKING_KIB = 128 * 1024


@pytest.fixture
def world(stack, source_db, journal_db, bucket, tmp_path) -> Iterator[ShippingWorld]:
    directory = tmp_path / "wal"
    directory.mkdir(mode=0o700)
    with shipping_world(stack, source_db, journal_db, bucket, directory) as world:
        yield world


def peak_kib(world: ShippingWorld, worker: Worker) -> int:
    """The most memory that one run over the directory ever held."""
    log = world.directory.with_name("steps")
    worker.start(Order(directory=str(world.directory), steps=str(log), parallelism=PARALLELISM))
    ended = worker.end()
    assert ended.exit_code == 0
    assert world.waiting() == []
    return ended.peak_kib


@pytest.mark.parametrize(
    ("segment_mib", "backlogs"),
    [
        (1, (20, 120)),
        pytest.param(1, (40, 400, 2000), marks=pytest.mark.soak),
        pytest.param(16, (24, 96), marks=pytest.mark.soak),
    ],
)
def test_a_longer_backlog_takes_no_more_memory(
    world: ShippingWorld, journal_db, recorded: RecordedWal, segment_mib: int, backlogs: tuple[int, ...]
):
    size = segment_mib * MEBIBYTE
    with wal_worker(world, journal_db) as worker:
        idle, peaks, first = peak_kib(world, worker), [], 0x100
        for count in backlogs:
            numbered(recorded, world.directory, first=first, count=count, segment_bytes=size)
            peaks.append(peak_kib(world, worker))
            first += count

    print(f"idle {idle} KiB, then {dict(zip(backlogs, peaks, strict=True))} KiB for so many of {segment_mib} MiB")
    assert max(peaks) < idle + WORKING_KIB + PARALLELISM * COPIES * segment_mib * 1024
