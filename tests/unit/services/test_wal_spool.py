"""The directory of pg_receivewal: what is taken out of it, what is left alone, and one process at a time."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from pv_backup.services.errors import ConfigurationError, RunAlive, WalDamaged
from pv_backup.services.wal_spool import SegmentHeader, WalSpool, segment_header

pytestmark = pytest.mark.case("TC-NOM-02")

SEGMENT = "00000001000000000000000A"
# XLogLongPageHeaderData of PostgreSQL 15: magic, info, timeline, address, rem_len, identifier, segment, page.
FIRST_PAGE = struct.pack("=HHIQI4xQII", 0xD110, 0x0002, 1, 0xA00000, 0, 7_300_000_000_000_000_001, 1 << 20, 8192)


@pytest.fixture
def spool(tmp_path: Path) -> WalSpool:
    return WalSpool(directory=tmp_path)


def put(spool: WalSpool, *names: str, content: bytes = FIRST_PAGE) -> None:
    for name in names:
        (spool.directory / name).write_bytes(content)


def names(spool: WalSpool) -> list[str]:
    return [file.name for file in spool.files()]


def test_histories_come_first_then_segments_as_they_were_written(spool: WalSpool):
    put(spool, "000000020000000000000001", "000000010000000100000000", SEGMENT, "00000003.history", "00000002.history")

    assert names(spool) == [
        "00000002.history",
        "00000003.history",
        SEGMENT,
        "000000010000000100000000",
        "000000020000000000000001",
    ]


@pytest.mark.parametrize(
    "name",
    [
        f"{SEGMENT}.partial",
        "00000002.history.tmp",
        f"{SEGMENT}.tmp",
        SEGMENT.lower(),
        "archive_status",
        ".pv_backup.json",
        ".pv_backup.lock",
        "00000003.history.gz",
    ],
)
def test_what_is_no_finished_file_is_left_alone(spool: WalSpool, name: str):
    put(spool, name)

    assert names(spool) == []
    assert (spool.directory / name).exists()


def test_subdirectories_and_links_to_nowhere_are_left_alone(spool: WalSpool):
    (spool.directory / SEGMENT).mkdir()
    (spool.directory / "00000001000000000000000B").symlink_to("nowhere")

    assert names(spool) == []
    assert not spool.contains(SEGMENT)
    assert spool.any_header() is None


@pytest.mark.parametrize("ending", [".gz", ".lz4"])
def test_a_pg_receivewal_that_compresses_is_named_and_stops_nothing(spool: WalSpool, ending: str):
    put(spool, SEGMENT)
    put(spool, f"{SEGMENT}{ending}")

    (fault,) = spool.faults()

    assert f"pg_receivewal compresses into {spool.directory} ({SEGMENT}{ending}, 1 in all)" in fault.what
    assert names(spool) == [SEGMENT]


@pytest.mark.parametrize("ending", [".gz.partial", ".lz4.partial", ".partial"])
def test_what_is_still_being_written_is_no_fault(spool: WalSpool, ending: str):
    put(spool, f"{SEGMENT}{ending}")

    assert list(spool.faults()) == []
    assert names(spool) == []


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o704])
def test_a_directory_that_others_may_look_into_is_named(spool: WalSpool, mode: int):
    spool.directory.chmod(mode)

    (fault,) = spool.faults()

    assert f"has mode {mode:04o}" in fault.what
    assert fault.remedy == f"chmod 0700 {spool.directory}"


def test_the_newest_segment_counts_by_its_place_and_not_by_its_timeline(spool: WalSpool):
    assert spool.newest() is None
    for name in ("000000010000000000000009", "00000002000000000000000A.partial", "00000003.history"):
        put(spool, name)

    assert str(spool.newest()) == "00000002000000000000000A"


def test_a_file_tells_its_size_and_when_it_was_finished(spool: WalSpool):
    put(spool, SEGMENT)
    os.utime(spool.directory / SEGMENT, (1000, 2000))

    (file,) = spool.files()

    assert (file.size, file.finished_at, str(file.segment)) == (len(FIRST_PAGE), 2000, SEGMENT)


def test_a_removed_file_is_gone_and_may_be_gone_already(spool: WalSpool):
    put(spool, SEGMENT)
    (file,) = spool.files()

    spool.remove(file)
    spool.remove(file)

    assert not spool.contains(SEGMENT)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path):
    spool = WalSpool(directory=tmp_path / "nowhere")

    for use in (spool.files, spool.any_header, lambda: spool.write_note("kept", []), spool.locked().__enter__):
        with pytest.raises(ConfigurationError, match="nowhere can't be used: No such file or directory"):
            use()


def test_a_segment_says_whose_and_which_it_is(spool: WalSpool):
    put(spool, SEGMENT)

    assert segment_header(spool.directory / SEGMENT) == SegmentHeader(1, 0xA00000, "7300000000000000001", 1 << 20)


def test_a_partial_that_was_just_made_has_no_header_yet(spool: WalSpool):
    name = f"{SEGMENT}.partial"
    put(spool, name, content=bytes(8192))

    assert segment_header(spool.directory / name) is None


@pytest.mark.case("TC-NEG-02")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is cut: it has 0 bytes"),
        (FIRST_PAGE[:-1], "is cut: it has 39 bytes"),
        (bytes(8192), "does not begin like a WAL segment of PostgreSQL 15"),
        (b"\x13" + FIRST_PAGE[1:], "does not begin like a WAL segment of PostgreSQL 15"),
        (FIRST_PAGE[:2] + b"\0\0" + FIRST_PAGE[4:], "does not begin like a WAL segment of PostgreSQL 15"),
    ],
    ids=["empty", "cut", "zeros", "another version", "not a first page"],
)
def test_a_finished_segment_without_its_header_is_damaged(spool: WalSpool, content: bytes, says: str):
    put(spool, SEGMENT, content=content)

    with pytest.raises(WalDamaged, match=f"{SEGMENT} {says}"):
        segment_header(spool.directory / SEGMENT)


def test_any_readable_segment_tells_whose_the_directory_is(spool: WalSpool):
    put(spool, SEGMENT)
    put(spool, "00000001000000000000000B", content=b"damaged")
    put(spool, "00000001000000000000000C.partial", content=bytes(8192))

    header = spool.any_header()

    assert header is not None
    assert header.address == 0xA00000


def test_the_open_segment_tells_it_too(spool: WalSpool):
    put(spool, "00000002.history", content=b"1\t0/A00000\tx\n")
    put(spool, f"{SEGMENT}.partial")

    header = spool.any_header()

    assert header is not None
    assert header.segment_bytes == 1 << 20


def test_one_process_at_a_time_ships(spool: WalSpool):
    other = WalSpool(directory=spool.directory)
    with spool.locked(), pytest.raises(RunAlive, match=f"another process ships WAL out of {spool.directory}"):
        other.locked().__enter__()

    with other.locked():
        pass


def test_a_note_is_kept_for_the_next_run(spool: WalSpool):
    spool.write_note("open", {"segment": SEGMENT, "since": 1.5})
    spool.write_note("kept", [SEGMENT])

    again = WalSpool(directory=spool.directory)
    assert (again.read_note("open"), again.read_note("kept")) == ({"segment": SEGMENT, "since": 1.5}, [SEGMENT])
    assert names(spool) == []


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff"])
def test_a_note_that_cannot_be_read_is_none(spool: WalSpool, content: bytes | None):
    if content is not None:
        put(spool, ".pv_backup.json", content=content)

    assert spool.read_note("kept") is None


def test_the_lock_is_nobody_elses_to_read(spool: WalSpool):
    with spool.locked():
        assert stat.S_IMODE((spool.directory / ".pv_backup.lock").stat().st_mode) == 0o600
