"""The names of WAL files, and which segment must follow which, against plain arithmetic on LSNs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv_backup.services.errors import FormatRejected
from pv_backup.services.wal import (
    Branch,
    Hole,
    Lineage,
    SegmentName,
    branches_of,
    format_lsn,
    history_name,
    is_wal_name,
    parse_lsn,
    runs_of,
    segment_of,
    segments_between,
)

pytestmark = pytest.mark.case("TC-NOM-02")

MEBIBYTE = 1 << 20
SIZES = [MEBIBYTE, 16 * MEBIBYTE, 64 * MEBIBYTE, 1024 * MEBIBYTE]
LOG = 1 << 32

sizes = st.sampled_from(SIZES)
lsns = st.integers(min_value=0, max_value=(1 << 44) - 1)
timelines = st.integers(min_value=1, max_value=(1 << 32) - 1)


@given(lsns, timelines, sizes)
def test_a_segment_holds_the_lsn_that_it_is_named_after(lsn: int, timeline: int, size: int):
    segment = segment_of(lsn, timeline, size)

    assert segment.start(size) == lsn - lsn % size
    assert SegmentName.parse(str(segment)) == segment
    assert is_wal_name(str(segment))


@given(lsns, timelines, sizes)
def test_the_next_segment_begins_where_this_one_ends(lsn: int, timeline: int, size: int):
    following = segment_of(lsn, timeline, size).next(size)

    assert following == segment_of(lsn + size, timeline, size)
    assert following.start(size) == lsn - lsn % size + size


@given(lsns, timelines, sizes)
def test_names_sort_as_their_segments_were_written(lsn: int, timeline: int, size: int):
    segment = segment_of(lsn, timeline, size)

    assert str(segment) < str(segment.next(size))
    assert segment < segment.next(size)


@pytest.mark.parametrize(
    ("size", "last_of_a_log"),
    [(MEBIBYTE, 0xFFF), (16 * MEBIBYTE, 0xFF), (64 * MEBIBYTE, 0x3F), (1024 * MEBIBYTE, 3)],
)
def test_a_log_ends_after_4_gib(size: int, last_of_a_log: int):
    assert SegmentName(1, 7, last_of_a_log).next(size) == SegmentName(1, 8, 0)
    assert Lineage(1, [], segment_bytes=size).before(SegmentName(1, 8, 0)) == SegmentName(1, 7, last_of_a_log)


@given(lsns, st.integers(min_value=1, max_value=40), st.data())
def test_the_segments_between_two_lsns_hold_each_byte_of_them(lsn: int, count: int, data: st.DataObject):
    size = data.draw(sizes)
    stop = lsn + data.draw(st.integers(min_value=1, max_value=count * size))

    segments = segments_between(lsn, stop, 3, size)

    assert segments[0].start(size) <= lsn
    assert segments[-1].start(size) < stop <= segments[-1].start(size) + size
    starts = [segment.start(size) for segment in segments]
    assert starts == list(range(starts[0], starts[-1] + 1, size))


def test_a_backup_that_stops_at_a_boundary_does_not_need_the_segment_that_begins_there():
    assert segments_between(0, 2 * MEBIBYTE, 1, MEBIBYTE) == [SegmentName(1, 0, 0), SegmentName(1, 0, 1)]


@given(st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_an_lsn_reads_as_it_is_written(lsn: int):
    assert parse_lsn(format_lsn(lsn)) == lsn


def test_an_lsn_is_written_as_postgresql_does():
    assert format_lsn(parse_lsn("16/b374d848")) == "16/B374D848"
    assert format_lsn(0) == "0/0"


@pytest.mark.case("TC-NEG-05")
@pytest.mark.parametrize("text", ["", "16", "16/", "/16", "1/2/3", "16/123456789", "x/1", "16/1 ", "-1/0"])
def test_what_is_no_lsn_is_refused(text: str):
    with pytest.raises(FormatRejected, match="lsn"):
        parse_lsn(text)


@pytest.mark.case("TC-NEG-05")
@pytest.mark.parametrize(
    "name",
    [
        "",
        "00000001000000000000000",
        "0000000100000000000000001",
        "00000001000000000000000a",
        "00000001000000000000000A.partial",
        "00000001000000000000000A.gz",
        "00000001000000000000000A.00000028.backup",
        "00000001000000000000000A\n",
        "00000002.history.tmp",
        "0000002.history",
        "0000000a.history",
        ".pv_backup.json",
    ],
)
def test_what_is_no_finished_file_is_not_shipped(name: str):
    assert not is_wal_name(name)


def test_a_history_is_shipped():
    assert history_name(26) == "0000001A.history"
    assert is_wal_name("0000001A.history")


# As PostgreSQL 15 writes it: parent, switch point, reason, with tabs, comments and blank lines.
HISTORY = "1\t0/5000000\tno recovery target specified\n\n# said by hand\n2\t0/7A00060\tbefore 2026-03-29 03:00:00+02\n"


def test_a_history_names_every_branch_on_the_way():
    assert branches_of(HISTORY) == [Branch(1, 0x5000000), Branch(2, 0x7A00060)]


@pytest.mark.parametrize("text", ["", "\0\0\0\0", "no history", "x\t0/1\ty", "1\t0/123456789\ttoo long", "1 0"])
def test_what_is_no_history_has_no_branch(text: str):
    assert branches_of(text) == []


def segment(timeline: int, number: int) -> SegmentName:
    return SegmentName(timeline, 0, number)


def test_what_precedes_a_timelines_first_segment_is_its_parents():
    # Timeline 2 left timeline 1 within segment 5.
    lineage = Lineage(2, [Branch(1, 0x500060)], segment_bytes=MEBIBYTE)

    assert lineage.before(segment(2, 5)) == segment(1, 4)
    assert lineage.before(segment(2, 6)) == segment(2, 5)
    assert lineage.after(segment(1, 4)) == segment(2, 5)
    assert lineage.after(segment(1, 3)) == segment(1, 4)


def test_a_switch_at_a_boundary_leaves_the_whole_segment_before_it_with_the_parent():
    lineage = Lineage(2, [Branch(1, 0x500000)], segment_bytes=MEBIBYTE)

    assert lineage.before(segment(2, 5)) == segment(1, 4)


def test_a_parent_that_was_left_in_its_own_first_segment_owns_none():
    # Two promotions within segment 5.
    lineage = Lineage(3, [Branch(1, 0x500060), Branch(2, 0x5000A0)], segment_bytes=MEBIBYTE)

    assert lineage.before(segment(3, 5)) == segment(1, 4)
    assert lineage.after(segment(1, 4)) == segment(3, 5)
    assert list(lineage.ends_up_to(segment(3, 7))) == [segment(3, 7), segment(1, 4)]


def test_the_ends_of_each_stretch_come_newest_first():
    lineage = Lineage(3, [Branch(1, 0x500060), Branch(2, 0x900000)], segment_bytes=MEBIBYTE)

    assert list(lineage.ends_up_to(segment(3, 12))) == [segment(3, 12), segment(2, 8), segment(1, 4)]
    assert list(lineage.ends_up_to(segment(2, 7))) == [segment(2, 7), segment(1, 4)]
    assert list(lineage.ends_up_to(segment(1, 2))) == [segment(1, 2)]


def test_what_a_timeline_wrote_is_part_of_a_later_one_up_to_the_byte_where_that_left_it():
    lineage = Lineage(4, [Branch(1, 0x500060), Branch(2, 0x900000)], segment_bytes=MEBIBYTE)

    assert lineage.includes(1, up_to=0x500060)
    assert not lineage.includes(1, up_to=0x500061)
    assert lineage.includes(2, up_to=0x500061)
    assert not lineage.includes(2, up_to=0x900001)
    assert not lineage.includes(3, up_to=0)
    assert lineage.includes(4, up_to=LOG)


def test_nothing_precedes_the_first_of_all_wal():
    assert Lineage(1, [], segment_bytes=MEBIBYTE).before(segment(1, 0)) is None


@given(
    st.lists(st.integers(min_value=1, max_value=60 * MEBIBYTE), max_size=5),
    st.integers(min_value=1, max_value=80),
)
def test_a_lineage_goes_back_and_forth_the_same_way(switches: list[int], number: int):
    branches = [Branch(timeline, lsn) for timeline, lsn in enumerate(sorted(switches), start=1)]
    lineage = Lineage(len(branches) + 1, branches, segment_bytes=MEBIBYTE)
    there = lineage.at(number * MEBIBYTE)

    before = lineage.before(there)

    assert before is not None
    assert lineage.after(before) == there
    # PostgreSQL's tliOfPointInHistory, asked for the segment's last byte: no later branch is within it.
    last_byte = there.start(MEBIBYTE) + MEBIBYTE - 1
    assert there.timeline == 1 + sum(branch.switch_lsn <= last_byte for branch in branches)


def test_a_hole_is_named_from_its_first_to_its_last():
    a, b, c = (str(segment(1, number)) for number in (3, 5, 6))
    assert str(Hole(segment(1, 3), segment(1, 5), segment(1, 6))) == f"{a} to {b}, before {c}"
    assert str(Hole(segment(1, 5), segment(1, 5), segment(1, 6))) == f"{b}, before {c}"


@given(st.sets(st.tuples(st.integers(1, 2), st.integers(0, 30))), sizes)
def test_runs_are_the_unbroken_stretches(chosen: set[tuple[int, int]], size: int):
    segments = {segment_of(number * size, timeline, size) for timeline, number in chosen}

    runs = list(runs_of(segments, size))

    covered = [
        segment_of(lsn, first.timeline, size)
        for first, last in runs
        for lsn in range(first.start(size), last.start(size) + 1, size)
    ]
    assert covered == sorted(segments)
    assert all(last.next(size) not in segments for _, last in runs)
