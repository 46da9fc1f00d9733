"""A WAL file whose object is in the bucket already: the same is done, and another one is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pv_backup.services.artefacts import wal_object_key
from tests.integration.vault_world import address_nobody_listens_at
from tests.integration.wal_forgery import SMALL_SEGMENTS, forged, genuine
from tests.integration.wal_world import RecordedWal, ShippingWorld, found, journal_at, shipping_world
from tests.integration.watched_client import store_watched

pytestmark = pytest.mark.case("TC-NOM-02")


@pytest.fixture
def world(stack, source_db, journal_db, bucket, tmp_path) -> Iterator[ShippingWorld]:
    with shipping_world(stack, source_db, journal_db, bucket, tmp_path) as world:
        yield world


@pytest.fixture
def name(recorded: RecordedWal) -> str:
    return recorded.first[3]


@pytest.fixture
def shipped(world: ShippingWorld, recorded: RecordedWal, name: str) -> ShippingWorld:
    """The file and its object are both there, as after a crash between journal and removal."""
    world.queue(recorded, name)
    world.run()
    world.queue(recorded, name)
    return world


def assert_done_once(world: ShippingWorld, name: str) -> None:
    assert world.waiting() == []
    assert world.bucket.versions(wal_object_key(name)) == [wal_object_key(name)]
    (event,) = world.events()
    assert str(event["backup_id"]) == world.backup_id_of(name)


def test_the_same_is_done_and_uploaded_no_second_time(shipped: ShippingWorld, name: str):
    report = shipped.run()

    assert (report.already_there, report.shipped, report.replaced, report.problems) == (1, 0, 0, [])
    assert_done_once(shipped, name)


@pytest.mark.case("TC-ERR-06", "TC-INV-05")
def test_a_file_that_the_journal_does_not_know_gets_the_event_of_the_object_that_is_there(
    world: ShippingWorld, recorded: RecordedWal, name: str
):
    world.queue(recorded, name)
    with journal_at(address_nobody_listens_at()) as journal:
        report = world.run(bench=world.with_bench(journal=journal))
    assert found(report) == [("ERR-47-06", "")]
    assert (world.waiting(), world.shipped(), world.events()) == ([name], [name], [])
    of_the_first_try = world.backup_id_of(name)

    assert world.run().already_there == 1

    assert world.backup_id_of(name) == of_the_first_try
    assert_done_once(world, name)


@pytest.mark.case("TC-NR-02")
def test_the_same_bytes_under_another_etag_are_the_same(shipped: ShippingWorld, name: str):
    key = wal_object_key(name)
    before = shipped.bucket.head(key)["ETag"]
    shipped.bucket.copy_in_parts(key)
    assert shipped.bucket.head(key)["ETag"] != before

    assert shipped.run().already_there == 1

    assert shipped.waiting() == []


@pytest.mark.case("TC-NR-02")
def test_an_artefact_that_another_worker_made_of_the_same_bytes_is_the_same(
    world: ShippingWorld, recorded: RecordedWal, name: str
):
    forgery = genuine(world, recorded, name, segment_log2=SMALL_SEGMENTS)
    world.queue(recorded, name)

    report = world.run()

    assert (report.already_there, report.problems) == (1, [])
    assert [str(event["backup_id"]) for event in world.events()] == [forgery.backup_id]


def test_a_file_that_came_there_while_we_packed_is_looked_at(world: ShippingWorld, recorded: RecordedWal, name: str):
    made = []

    def a_worker_thought_dead_ends_its_upload(call: str) -> None:
        if call == "before put_object" and not made:
            made.append(genuine(world, recorded, name))

    world.queue(recorded, name)
    report = world.run(bench=world.with_bench(store=store_watched(world.backup, a_worker_thought_dead_ends_its_upload)))

    assert (report.already_there, report.problems) == (1, [])
    assert world.backup_id_of(name) == made[0].backup_id
    assert_done_once(world, name)


def bodies(world: ShippingWorld) -> dict[str, bytes]:
    return {key: world.bucket.body(key) for key in world.bucket.keys()}  # noqa: SIM118 - a view of ours


def test_another_clusters_file_is_kept_beside_ours_and_the_others_go_on(
    world: ShippingWorld, recorded: RecordedWal, foreign: RecordedWal, tmp_path_factory
):
    names = sorted({*recorded.first, *recorded.second} & {*foreign.first, *foreign.second})
    theirs, ours = [*names[:2], foreign.history], [*names[:3], recorded.history]
    elsewhere = ShippingWorld(world.backup, tmp_path_factory.mktemp("theirs"))
    elsewhere.queue(foreign, *theirs)
    elsewhere.run()
    there = bodies(world)
    world.queue(recorded, *ours)

    report = world.run()

    assert sorted(found(report)) == sorted(("WAL-CONFLICT", name) for name in theirs)
    told = [problem.error.what for problem in report.problems]
    assert all(foreign.system_identifier in text and recorded.system_identifier in text for text in told)
    assert world.waiting() == [recorded.history, *names[:2]]
    assert bodies(world) == there | {
        key: body for key, body in bodies(world).items() if key.startswith(f"wal/{names[2]}")
    }
    assert world.fetched(names[2]) == recorded.bytes(names[2])


def test_a_history_of_the_same_bytes_is_still_another_clusters(world: ShippingWorld, recorded, foreign, name: str):
    history = recorded.history
    forged(world, history, recorded.bytes(history), system_identifier=foreign.system_identifier)
    world.queue(recorded, history, name)

    report = world.run()

    assert found(report) == [("WAL-CONFLICT", history)]
    assert (world.waiting(), report.shipped) == ([history], 1)


def test_other_bytes_of_the_same_cluster_are_kept_and_told_each_run(world: ShippingWorld, recorded, name: str):
    own = recorded.bytes(name)
    other = own[:8192] + bytes(8192) + own[16384:]
    forgery = forged(world, name, other, system_identifier=recorded.system_identifier)
    world.queue(recorded, name)

    for _ in range(2):
        assert found(world.run()) == [("WAL-CONFLICT", name)]

    assert world.waiting() == [name]
    assert (world.fetched(name), world.backup_id_of(name)) == (other, forgery.backup_id)
    assert world.events() == []
