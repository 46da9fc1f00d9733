"""What a text column and a signature take of whatever was read, whole for a proof and cut for a row."""

from __future__ import annotations

import pytest

from pv_backup.services.evidence.storable import storable
from pv_backup.services.journal import ERROR_TEXT_MAX, fitting

pytestmark = pytest.mark.case("TC-ERR-07")

UGLY = "a\N{NULL}b\udcff"
CLEAN = "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


def test_all_text_of_a_tree_is_stored_whole():
    assert storable({UGLY: [UGLY, 1, None, {"x": "y" * 10_000}]}) == {CLEAN: [CLEAN, 1, None, {"x": "y" * 10_000}]}


def test_a_bound_cuts_each_text_and_says_so():
    assert storable(["abcde", {"x": "abcdef"}], most=5) == ["abcde", {"x": "abcd…"}]


@pytest.mark.parametrize("length", [ERROR_TEXT_MAX, ERROR_TEXT_MAX + 1, 3 * ERROR_TEXT_MAX])
def test_a_row_takes_the_same_text_in_its_length(length):
    text = UGLY + "x" * (length - len(UGLY))

    assert fitting(text).startswith(CLEAN + "x")
    assert len(fitting(text)) == ERROR_TEXT_MAX
    assert fitting(text).endswith("…") is (length > ERROR_TEXT_MAX)
