"""Files that have to stay: told a few at a time, and never in the way of the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pv_backup.services.artefacts import wal_object_key
from pv_backup.services.wal_report import TOLD_ONE_BY_ONE, Problem
from tests.integration.wal_world import RecordedWal, ShippingWorld, found, numbered, shipping_world

pytestmark = pytest.mark.case("TC-NOM-02")

MANY = 25


@pytest.fixture
def world(stack, source_db, journal_db, bucket, tmp_path) -> Iterator[ShippingWorld]:
    with shipping_world(stack, source_db, journal_db, bucket, tmp_path) as world:
        yield world


@pytest.fixture
def conflicting(world: ShippingWorld, recorded: RecordedWal) -> list[str]:
    """Files of which the bucket has other ones, whole, under the same names."""
    names = numbered(recorded, world.directory, first=1000, count=MANY)
    world.run()
    assert numbered(recorded, world.directory, first=1000, count=MANY) == names
    return names


def test_many_conflicts_are_three_alerts_and_one_for_the_rest(world: ShippingWorld, conflicting: list[str]):
    told: list[Problem] = []

    report = world.run(tell=told.append)

    assert len(report.problems) == MANY
    assert len(told) == TOLD_ONE_BY_ONE + 1
    assert {problem.error.code for problem in told} == {"WAL-CONFLICT"}
    assert told[-1].subject == "more"
    assert f"{MANY - TOLD_ONE_BY_ONE} more WAL files" in told[-1].error.what
    assert world.waiting() == conflicting


def test_new_files_go_before_kept_ones_of_which_a_few_are_looked_at_again(
    world: ShippingWorld, recorded: RecordedWal, conflicting: list[str]
):
    world.run()
    new = numbered(recorded, world.directory, first=1000 + MANY, count=2)

    report = world.run()

    assert report.shipped == len(new)
    assert {subject for _, subject in found(report)} == set(conflicting[:20])
    assert world.waiting() == conflicting


def test_a_kept_file_goes_when_what_it_met_is_gone(world: ShippingWorld, conflicting: list[str]):
    world.run()
    for name in conflicting:
        world.bucket.delete(wal_object_key(name))

    shipped = [world.run().shipped for _ in range(2)]

    assert shipped == [20, MANY - 20]
    assert world.waiting() == []


@pytest.mark.case("TC-NEG-01", "TC-NEG-04")
def test_an_object_that_does_not_open_and_names_another_cluster_is_kept(world: ShippingWorld, recorded: RecordedWal):
    (name,) = numbered(recorded, world.directory, first=7, count=1)
    world.run()
    key = wal_object_key(name)
    theirs = bytearray(world.bucket.body(key))
    theirs[-1] ^= 1
    world.bucket.overwrite(key, bytes(theirs), {"system_identifier": "7000000000000000007"})
    numbered(recorded, world.directory, first=7, count=1)

    report = world.run()

    assert found(report) == [("WAL-CONFLICT", name)]
    assert "cluster 7000000000000000007 wrote it" in report.problems[0].error.what
    assert world.bucket.body(key) == bytes(theirs)
    assert world.waiting() == [name]
