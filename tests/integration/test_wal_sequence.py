"""Holes in the sequence of WAL, each named exactly, and timeline switches, which are none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pv_backup.services.artefacts import wal_object_key
from tests.integration.wal_world import RecordedWal, ShippingWorld, found, shipping_world

pytestmark = pytest.mark.case("TC-NOM-02")


@pytest.fixture
def world(stack, source_db, journal_db, bucket, tmp_path) -> Iterator[ShippingWorld]:
    with shipping_world(stack, source_db, journal_db, bucket, tmp_path) as world:
        yield world


def gaps(world: ShippingWorld) -> list[str]:
    """What a run says of holes; whatever else it meets fails the test, and what waits is shipped all the same."""
    report = world.run()
    assert {problem.error.code for problem in report.problems} <= {"WAL-GAP"}
    assert world.waiting() == []
    return [problem.error.what for problem in report.problems]


def shipped(world: ShippingWorld, recorded: RecordedWal, *names: str) -> None:
    world.queue(recorded, *names)
    assert gaps(world) == []


def test_the_beginning_of_an_archive_is_no_hole(world: ShippingWorld, recorded: RecordedWal):
    shipped(world, recorded, *recorded.first[2:5])


def test_a_hole_in_the_directory_is_named_from_its_first_to_its_last(world: ShippingWorld, recorded: RecordedWal):
    first = recorded.first
    world.queue(recorded, first[0], first[1], first[5], first[6], first[8])

    assert gaps(world) == [
        f"WAL is missing: {first[2]} to {first[4]}, before {first[5]}",
        f"WAL is missing: {first[7]}, before {first[8]}",
    ]


def test_a_hole_between_bucket_and_directory_is_named(world: ShippingWorld, recorded: RecordedWal):
    first = recorded.first
    shipped(world, recorded, *first[:3])
    world.queue(recorded, first[5])

    assert gaps(world) == [f"WAL is missing: {first[3]} to {first[4]}, before {first[5]}"]


def test_a_hole_is_named_once_and_what_follows_it_is_none(world: ShippingWorld, recorded: RecordedWal):
    first = recorded.first
    shipped(world, recorded, first[0])
    world.queue(recorded, first[2])
    assert len(gaps(world)) == 1

    shipped(world, recorded, first[3])


def test_a_segment_that_comes_late_is_no_hole(world: ShippingWorld, recorded: RecordedWal):
    first = recorded.first
    shipped(world, recorded, first[0], first[1])
    world.queue(recorded, first[3])
    gaps(world)

    shipped(world, recorded, first[2])


@pytest.mark.parametrize("in_bucket", [True, False], ids=["in the bucket", "in the directory"])
def test_a_timeline_switch_is_no_hole(world: ShippingWorld, recorded: RecordedWal, in_bucket: bool):
    world.queue(recorded, *recorded.first, recorded.history)
    if in_bucket:
        assert gaps(world) == []

    shipped(world, recorded, *recorded.second)

    assert world.shipped() == sorted([*recorded.first, recorded.history, *recorded.second])
    assert world.fetched(recorded.history) == recorded.bytes(recorded.history)


def test_a_missing_history_is_named(world: ShippingWorld, recorded: RecordedWal):
    shipped(world, recorded, *recorded.first)
    world.queue(recorded, *recorded.second)

    (gap,) = gaps(world)

    assert gap.startswith(f"{recorded.history} is neither in the bucket nor in {world.directory}")


def test_a_hole_before_the_switch_is_named_on_the_parents_timeline(world: ShippingWorld, recorded: RecordedWal):
    shipped(world, recorded, *recorded.first[:-2])
    world.queue(recorded, recorded.history, *recorded.second)

    assert gaps(world) == [f"WAL is missing: {recorded.first[-2]} to {recorded.first[-1]}, before {recorded.second[0]}"]


def test_a_hole_behind_the_switch_is_named_on_the_childs_timeline(world: ShippingWorld, recorded: RecordedWal):
    shipped(world, recorded, *recorded.first, recorded.history)
    world.queue(recorded, recorded.second[2])

    assert gaps(world) == [f"WAL is missing: {recorded.second[0]} to {recorded.second[1]}, before {recorded.second[2]}"]


def test_a_hole_across_the_switch_is_named_from_one_timeline_to_the_other(world: ShippingWorld, recorded: RecordedWal):
    shipped(world, recorded, *recorded.first[:-1], recorded.history)
    world.queue(recorded, recorded.second[1])

    assert gaps(world) == [f"WAL is missing: {recorded.first[-1]} to {recorded.second[0]}, before {recorded.second[1]}"]


def test_a_predecessor_of_another_cluster_is_told_with_both_names(world: ShippingWorld, recorded, foreign):
    before, after = recorded.first[0], recorded.first[1]
    world.queue(foreign, before)
    world.run()
    world.queue(recorded, after)

    report = world.run()

    assert found(report) == [("WAL-CONFLICT", after)]
    told = report.problems[0].error.what
    assert wal_object_key(before) in told
    assert foreign.system_identifier in told
    assert recorded.system_identifier in told


@pytest.mark.case("TC-NEG-01")
def test_a_history_that_does_not_open_in_the_bucket_is_told_and_stops_nothing(world: ShippingWorld, recorded):
    shipped(world, recorded, *recorded.first, recorded.history)
    key = wal_object_key(recorded.history)
    world.bucket.overwrite(key, world.bucket.body(key)[:-1])
    world.queue(recorded, *recorded.second)

    report = world.run()

    assert found(report) == [("WAL-DAMAGED", recorded.second[0])]
    assert key in report.problems[0].error.what
    assert world.waiting() == []
