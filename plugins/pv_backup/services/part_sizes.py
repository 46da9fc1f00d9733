"""How large the parts of a multipart upload are, when nobody knows how many there will be."""

from __future__ import annotations

from collections.abc import Iterator

from pv_backup.services.settings import MULTIPART_ABOVE_BYTES

MEBIBYTE = 1024 * 1024
MAX_PARTS = 10_000
MAX_PART_BYTES = 5 * 1024 * MEBIBYTE

_PARTS_AT_BASE_SIZE = 8_000
_PARTS_DOUBLED = 1_000
_PARTS_PER_DOUBLING = 125


def part_sizes(base: int, expected_bytes: int) -> Iterator[int]:
    """Plan part sizes so that 10,000 parts always suffice and memory stays flat as long as it can.

    A stream's length is unknown, its database's size is not: the base grows so that the expected bytes
    fit. Should the stream outgrow that, 8,000 parts keep the base size and 1,000 take twice as much,
    which is what 10,000 base parts hold; only then do parts double every 125, up to 13 times that.
    What fills no first part goes as one PutObject, so that part is never above 100 MB.

    :param base: bytes per part, from `part_size_mb`.
    :param expected_bytes: an upper estimate of the object's size, 0 when there is none.
    """
    base = max(base, -(-expected_bytes // MAX_PARTS))
    yield min(base, MULTIPART_ABOVE_BYTES)
    yield from (base for _ in range(_PARTS_AT_BASE_SIZE - 1))
    yield from (2 * base for _ in range(_PARTS_DOUBLED))
    for number in range(MAX_PARTS - _PARTS_AT_BASE_SIZE - _PARTS_DOUBLED):
        yield min(base * 4 << (number // _PARTS_PER_DOUBLING), MAX_PART_BYTES)
