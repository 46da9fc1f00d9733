"""A file in the WAL directory that is not what its name says: told, kept for inspection, never shipped."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from tests.integration.wal_world import RecordedWal, ShippingWorld, found, shipping_world

pytestmark = pytest.mark.case("TC-NOM-02", "TC-NEG-02")


@pytest.fixture
def world(stack, source_db, journal_db, bucket, tmp_path) -> Iterator[ShippingWorld]:
    with shipping_world(stack, source_db, journal_db, bucket, tmp_path) as world:
        yield world


def patched(offset: int, replacement: bytes) -> Callable[[bytes, bytes], bytes]:
    return lambda own, other: own[:offset] + replacement + own[offset + len(replacement) :]


# What the first page of a segment says, and where (XLogLongPageHeaderData of PostgreSQL 15).
DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "cut in half": lambda own, other: own[: len(own) // 2],
    "cut to its first page": lambda own, other: own[:8192],
    "cut in its header": lambda own, other: own[:20],
    "empty": lambda own, other: b"",
    "too long": lambda own, other: own + bytes(8192),
    "zeros": lambda own, other: bytes(len(own)),
    "another segment's bytes": lambda own, other: other,
    "another version's magic": patched(0, struct.pack("=H", 0xD113)),
    "no long header": patched(2, struct.pack("=H", 0)),
    "a later timeline": patched(4, struct.pack("=I", 2)),
    "another segment size": patched(32, struct.pack("=I", 16 << 20)),
}


def test_damaged_segments_are_kept_and_told_each_by_name_and_the_others_shipped(
    world: ShippingWorld, recorded: RecordedWal
):
    damaged, (whole, *_) = recorded.first[: len(DAMAGES)], recorded.first[len(DAMAGES) :]
    world.queue(recorded, whole)
    contents = {
        name: damage(recorded.bytes(name), recorded.bytes(whole))
        for name, damage in zip(damaged, DAMAGES.values(), strict=True)
    }
    for name, content in contents.items():
        (world.directory / name).write_bytes(content)

    report = world.run()

    assert sorted(found(report)) == [("WAL-DAMAGED", name) for name in damaged]
    assert all(str(world.directory / problem.subject) in problem.error.what for problem in report.problems)
    assert (world.shipped(), report.shipped) == ([whole], 1)
    assert {name: (world.directory / name).read_bytes() for name in world.waiting()} == contents


def test_a_history_that_is_none_is_kept_and_told(world: ShippingWorld, recorded: RecordedWal):
    world.queue(recorded, recorded.second[0])
    (world.directory / recorded.history).write_bytes(b"\0" * 40)

    report = world.run()

    assert ("WAL-DAMAGED", recorded.history) in found(report)
    assert (world.waiting(), world.shipped()) == ([recorded.history], [recorded.second[0]])


@pytest.mark.parametrize("obstacle", ["directory", "dangling link"])
def test_what_is_no_file_is_left_alone_and_the_others_go_on(world: ShippingWorld, recorded: RecordedWal, obstacle: str):
    in_the_way = world.directory / recorded.first[5]
    in_the_way.mkdir() if obstacle == "directory" else in_the_way.symlink_to("nowhere")
    world.queue(recorded, recorded.first[4])

    report = world.run()

    assert (report.problems, world.shipped(), world.waiting()) == ([], [recorded.first[4]], [])


def test_a_directory_in_which_no_segment_can_be_read_is_told(world: ShippingWorld, recorded: RecordedWal):
    name = recorded.first[0]
    (world.directory / name).write_bytes(bytes(1 << 20))

    report = world.run()

    assert found(report) == [("WAL-DAMAGED", "")]
    assert str(world.directory) in report.problems[0].error.what
    assert (world.waiting(), world.shipped()) == ([name], [])
