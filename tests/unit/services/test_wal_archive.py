"""Which numbers a new timeline must not get: what has one of them would be in the bucket twice."""

from __future__ import annotations

from typing import cast

import pytest

from pv_backup.services.artefacts import wal_object_key
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.restoration.wal_archive import WalArchive

pytestmark = pytest.mark.case("TC-NOM-03", "TC-NOM-04")


class Store:
    """Lists these files and no other."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def keys_between(self, prefix: str, first: str, last: str) -> list[str]:
        return [wal_object_key(name) for name in self._names]


@pytest.mark.parametrize(
    ("names", "newest", "taken"),
    [
        ((), 1, []),
        (("00000002.history",), 2, [2]),
        (("000000020000000000000005",), 2, [2]),
        (("00000005.history",), 5, [2, 3, 4, 5]),
        ((), 3, [2, 3]),
        (("00000002.history", "000000030000000000000001", "00000004.history", "00000007.history"), 2, [2, 3, 4]),
    ],
    ids=["none", "a history", "a segment only", "after a gap", "a base backup only", "another cluster's"],
)
def test_every_number_up_to_the_newest_is_taken_and_what_is_there_behind_it(
    names: tuple[str, ...], newest: int, taken: list[int]
):
    archive = WalArchive(
        store=cast("ObjectStore", Store(names)),
        keys=cast("KeyWrapper", None),
        timeline=1,
        segment_bytes=1024 * 1024,
        system_identifier="1",
    )

    assert list(archive.taken_after(1, newest)) == taken
