"""Names of WAL files: what they say of timelines and positions, and which one must follow which.

The rules are PostgreSQL's own (`src/include/access/xlog_internal.h` of version 15). A hole in the sequence
is the one thing that no later backup mends, so the arithmetic stands apart and touches no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from pv_backup.services.errors import FormatRejected

_LOG_BYTES: Final = 1 << 32
_SEGMENT: Final = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history")
_LSN: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
# A line of a .history file: parent timeline, where it was left, why.
_SWITCH: Final = re.compile(r"^\s*(\d+)\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s|$)")


@dataclass(frozen=True, order=True)
class SegmentName:
    """One segment: the timeline, and the two halves of its number as the file's name has them."""

    timeline: int
    log: int
    segment: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a file name, None if it is not that of a finished segment."""
        match = _SEGMENT.fullmatch(text)
        return cls(*(int(digits, 16) for digits in match.groups())) if match else None

    def __str__(self) -> str:
        return f"{self.timeline:08X}{self.log:08X}{self.segment:08X}"

    def start(self, segment_bytes: int) -> int:
        """The LSN of its first byte."""
        return self.log * _LOG_BYTES + self.segment * segment_bytes

    def next(self, segment_bytes: int) -> SegmentName:
        """The segment that follows on the same timeline."""
        return segment_of(self.start(segment_bytes) + segment_bytes, self.timeline, segment_bytes)


def segment_of(lsn: int, timeline: int, segment_bytes: int) -> SegmentName:
    """The segment that holds the byte at this LSN."""
    log, offset = divmod(lsn, _LOG_BYTES)
    return SegmentName(timeline, log, offset // segment_bytes)


def segments_between(start_lsn: int, stop_lsn: int, timeline: int, segment_bytes: int) -> list[SegmentName]:
    """The segments that hold the bytes from start up to and without stop, which is where a backup ends."""
    last = segment_of(max(start_lsn, stop_lsn - 1), timeline, segment_bytes)
    return list(_from_to(segment_of(start_lsn, timeline, segment_bytes), last, segment_bytes))


def _from_to(first: SegmentName, last: SegmentName, segment_bytes: int) -> Iterator[SegmentName]:
    while first <= last:
        yield first
        first = first.next(segment_bytes)


def parse_lsn(text: str) -> int:
    """Read an LSN such as `16/B374D848`.

    :raises FormatRejected: if it is none.
    """
    match = _LSN.fullmatch(text)
    if match is None:
        raise FormatRejected("lsn", f"{text!r} is not two hexadecimal numbers with a slash between them")
    return int(match[1], 16) * _LOG_BYTES + int(match[2], 16)


def format_lsn(lsn: int) -> str:
    """Write an LSN the way PostgreSQL does."""
    high, low = divmod(lsn, _LOG_BYTES)
    return f"{high:X}/{low:X}"


def history_name(timeline: int) -> str:
    """The file that tells where a timeline branched off."""
    return f"{timeline:08X}.history"


def is_history_name(text: str) -> bool:
    """Whether a file's name is that of a timeline history."""
    return _HISTORY.fullmatch(text) is not None


def is_wal_name(text: str) -> bool:
    """Whether a file of this name is to be shipped: a finished segment or a timeline history."""
    return SegmentName.parse(text) is not None or is_history_name(text)


@dataclass(frozen=True)
class Branch:
    """Where a timeline left its parent: `parent` wrote up to `switch_lsn` (an integer LSN) and no further."""

    parent: int
    switch_lsn: int


def branches_of(history: str) -> list[Branch]:
    """Read from a `.history` file every branch on the way to its timeline, the oldest first; none: it is no history.

    Source: https://www.postgresql.org/docs/15/continuous-archiving.html#BACKUP-TIMELINES
    """
    lines = [match for line in history.splitlines() if (match := _SWITCH.match(line))]
    return [Branch(int(line[1]), parse_lsn(line[2])) for line in lines]


@dataclass(frozen=True)
class Stretch:
    """The segments of one server's past that are on one timeline, from the one that begins at LSN `start` on."""

    timeline: int
    start: int


class Lineage:
    """Which segments lead to a timeline: recovery reads them in this order, and no others.

    The first segment of a timeline begins with a copy of its parent's bytes, so what precedes it is the
    parent's segment before the one in which they parted; or the grandparent's, where both parted in one.
    """

    def __init__(self, timeline: int, branches: Sequence[Branch], *, segment_bytes: int) -> None:
        timelines = [*(branch.parent for branch in branches), timeline]
        starts = [0, *(branch.switch_lsn // segment_bytes * segment_bytes for branch in branches)]
        self._segment_bytes = segment_bytes
        self._ends = {branch.parent: branch.switch_lsn for branch in branches}
        self._newest_first = [Stretch(*pair) for pair in zip(timelines, starts, strict=True)][::-1]

    @property
    def timelines(self) -> list[int]:
        """The timelines on the way, the oldest first."""
        return [stretch.timeline for stretch in reversed(self._newest_first)]

    def includes(self, timeline: int, *, up_to: int) -> bool:
        """Whether what that timeline wrote up to without this LSN is part of it, and not of a history left before."""
        return timeline == self._newest_first[0].timeline or up_to <= self._ends.get(timeline, -1)

    def left(self, other: Lineage) -> int:
        """The LSN up to which both are one history."""
        shared = [timeline for timeline in self.timelines if timeline in other.timelines]
        return min((ends[shared[-1]] for ends in (self._ends, other._ends) if shared and shared[-1] in ends), default=0)

    def at(self, lsn: int) -> SegmentName:
        """The segment that holds the byte at this LSN."""
        timeline = next(stretch.timeline for stretch in self._newest_first if stretch.start <= lsn)
        return segment_of(lsn, timeline, self._segment_bytes)

    def before(self, segment: SegmentName) -> SegmentName | None:
        """The segment that must have been shipped before this one, None for the first of all WAL."""
        start = segment.start(self._segment_bytes)
        return self.at(start - self._segment_bytes) if start else None

    def after(self, segment: SegmentName) -> SegmentName:
        """The segment that must be shipped next."""
        return self.at(segment.start(self._segment_bytes) + self._segment_bytes)

    def ends_up_to(self, segment: SegmentName) -> Iterator[SegmentName]:
        """The last segment of each stretch that is not after this one, the newest first."""
        end = segment.start(self._segment_bytes)
        for stretch in self._newest_first:
            if stretch.start <= end:
                yield segment_of(end, stretch.timeline, self._segment_bytes)
                end = stretch.start - self._segment_bytes


@dataclass(frozen=True)
class Hole:
    """Segments that are missing in front of one that is there."""

    first: SegmentName
    last: SegmentName
    before: SegmentName

    def __str__(self) -> str:
        named = str(self.first) if self.first == self.last else f"{self.first} to {self.last}"
        return f"{named}, before {self.before}"


def runs_of(segments: Iterable[SegmentName], segment_bytes: int) -> Iterator[tuple[SegmentName, SegmentName]]:
    """The unbroken stretches of one or more timelines, as their first and last segments."""
    first = last = None
    for segment in sorted(segments):
        if last is not None and first is not None and segment != last.next(segment_bytes):
            yield first, last
            first = None
        first, last = first or segment, segment
    if first is not None and last is not None:
        yield first, last
