"""WAL shipping on what a real pg_receivewal writes: shipped, verified, journaled, removed, once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.wal_world import WalWorld, wal_world

pytestmark = pytest.mark.case("TC-NOM-02")


@pytest.fixture
def world(stack, source_cluster, journal_db, bucket) -> Iterator[WalWorld]:
    with wal_world(stack, source_cluster, journal_db, bucket) as world:
        yield world


def test_finished_segments_are_shipped_and_leave_the_directory(world: WalWorld):
    names = world.segments(5)
    contents = {name: (world.cluster.wal_directory / name).read_bytes() for name in names}

    report = world.run()

    assert (report.shipped, report.backlog, report.problems) == (len(world.shipped()), 0, [])
    assert set(names) <= set(world.shipped())
    assert world.cluster.finished() == []
    assert {name: world.fetched(name) for name in names} == contents
