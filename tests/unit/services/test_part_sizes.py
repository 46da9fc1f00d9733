"""Part sizes: 10,000 parts always suffice, and memory stays flat as long as it can (SPEC section 5, part_size_mb)."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest

from pv_backup.services.part_sizes import MAX_PART_BYTES, MAX_PARTS, MEBIBYTE, part_sizes
from pv_backup.services.settings import MULTIPART_ABOVE_BYTES

pytestmark = pytest.mark.case("TC-ERR-03")

BASE = 16 * MEBIBYTE
TEBIBYTE = 1 << 40


def test_there_are_ten_thousand_parts_and_none_is_too_large_or_too_small():
    sizes = list(part_sizes(5 * MEBIBYTE, 0))
    assert len(sizes) == MAX_PARTS == 10_000
    assert min(sizes) == 5 * MEBIBYTE
    assert max(sizes) <= MAX_PART_BYTES == 5 << 30


def test_parts_stay_at_their_base_for_eight_thousand():
    assert set(islice(part_sizes(BASE, 0), 8_000)) == {BASE}


def test_the_first_nine_thousand_hold_what_ten_thousand_base_parts_would():
    assert sum(islice(part_sizes(BASE, 0), 9_000)) == 10_000 * BASE


def test_parts_never_shrink_and_never_more_than_double():
    for smaller, larger in pairwise(part_sizes(BASE, 0)):
        assert smaller <= larger <= 2 * smaller


@pytest.mark.parametrize("expected", [0, 1, 10_000 * BASE, 10_000 * BASE + 1, 5 * TEBIBYTE])
def test_the_expected_size_fits_with_room_to_grow(expected):
    assert sum(part_sizes(BASE, expected)) >= 1.5 * expected


def test_an_expected_size_that_fits_does_not_grow_the_parts():
    assert list(part_sizes(BASE, 10_000 * BASE)) == list(part_sizes(BASE, 0))


def test_a_stream_without_an_estimate_may_outgrow_its_base_tenfold():
    assert sum(part_sizes(5 * MEBIBYTE, 0)) >= 10 * 10_000 * 5 * MEBIBYTE


@pytest.mark.parametrize(("base", "expected"), [(BASE, 0), (512 * MEBIBYTE, 0), (BASE, 5 * TEBIBYTE)])
def test_what_goes_as_one_put_is_never_above_the_multipart_threshold(base, expected):
    assert next(part_sizes(base, expected)) <= MULTIPART_ABOVE_BYTES
