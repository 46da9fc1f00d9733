"""An object under a WAL file's key that is not what it says: told once, and replaced from the file (TC-NEG)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from pv_backup.services.artefacts import wal_object_key
from tests.integration.wal_forgery import SMALL_SEGMENTS, forged, genuine
from tests.integration.wal_world import RecordedWal, ShippingWorld, found, shipping_world
from tests.integration.watched_client import store_watched

pytestmark = pytest.mark.case("TC-NOM-02")


@pytest.fixture
def world(stack, source_db, journal_db, bucket, tmp_path) -> Iterator[ShippingWorld]:
    with shipping_world(stack, source_db, journal_db, bucket, tmp_path) as world:
        yield world


@pytest.fixture
def name(recorded: RecordedWal) -> str:
    return recorded.first[3]


def flip(position: Callable[[int, int], int]) -> Callable[[bytes, int], bytes]:
    def flipped(body: bytes, header: int) -> bytes:
        changed = bytearray(body)
        changed[position(len(body), header)] ^= 1
        return bytes(changed)

    return flipped


DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "a flipped byte in the magic": flip(lambda size, header: 1),
    "a flipped byte in the header's tag": flip(lambda size, header: header - 1),
    "a flipped byte in a segment": flip(lambda size, header: header + 1000),
    "cut by a byte": lambda body, header: body[:-1],
    "cut after the header": lambda body, header: body[:header],
    "cut to nothing": lambda body, header: b"",
    "a byte appended": lambda body, header: body + b"\0",
}
FORGERIES: dict[str, Callable[[dict[str, str], dict[str, str]], dict[str, str]]] = {
    "no metadata": lambda own, other: {},
    "another file's metadata": lambda own, other: other,
    **{
        f"another {field}": lambda own, other, field=field: own | {field: other[field]}
        for field in ("wrapped_dek", "iv", "auth_tag", "hash_sha3_256")
    },
    "another key version": lambda own, other: own | {"k_backup_version": str(int(own["k_backup_version"]) + 1)},
    "another cluster's number": lambda own, other: own | {"system_identifier": "7"},
}


def assert_replaced(world: ShippingWorld, recorded: RecordedWal, damaged: dict[str, str]) -> None:
    """One run replaces the objects, tells of each once, and leaves nothing to do.

    :param damaged: file → the backup_id of the object that does not open.
    """
    world.queue(recorded, *damaged)
    versions = {name: len(world.bucket.versions(wal_object_key(name))) for name in damaged}

    report = world.run()

    assert (report.replaced, sorted(found(report))) == (len(damaged), [("WAL-DAMAGED", name) for name in damaged])
    assert all(wal_object_key(problem.subject) in problem.error.what for problem in report.problems)
    assert world.waiting() == []
    for name, backup_id in damaged.items():
        replacement = world.backup_id_of(name)
        assert replacement != backup_id
        assert world.fetched(name) == recorded.bytes(name)
        assert len(world.bucket.versions(wal_object_key(name))) == versions[name] + 1, "S3 keeps the damaged one"
    assert {str(event["backup_id"]) for event in world.events()} == {world.backup_id_of(name) for name in damaged}


@pytest.mark.case("TC-NEG-01", "TC-NEG-02", "TC-INV-04")
def test_objects_that_do_not_open_are_replaced(world: ShippingWorld, recorded: RecordedWal):
    damaged = {}
    for name, damage in zip(recorded.first, DAMAGES.values(), strict=False):
        whole = genuine(world, recorded, name)
        world.bucket.put(wal_object_key(name), damage(whole.body, whole.header_bytes), whole.metadata)
        damaged[name] = whole.backup_id
    assert len(damaged) == len(DAMAGES)

    assert_replaced(world, recorded, damaged)


@pytest.mark.case("TC-NEG-04")
def test_objects_with_forged_metadata_are_replaced(world: ShippingWorld, recorded: RecordedWal):
    other = genuine(world, recorded, recorded.second[0])
    damaged = {}
    for name, forge in zip(recorded.first, FORGERIES.values(), strict=False):
        own = genuine(world, recorded, name)
        world.bucket.put(wal_object_key(name), own.body, forge(own.metadata, other.metadata))
        damaged[name] = own.backup_id
    assert len(damaged) == len(FORGERIES)

    assert_replaced(world, recorded, damaged)


@pytest.mark.case("TC-NEG-02")
def test_an_object_cut_at_a_segment_boundary_is_replaced(world: ShippingWorld, recorded: RecordedWal, name: str):
    whole = genuine(world, recorded, name, segment_log2=SMALL_SEGMENTS)
    world.bucket.put(wal_object_key(name), whole.cut_after_segments(1), whole.metadata)

    assert_replaced(world, recorded, {name: whole.backup_id})


@pytest.mark.case("TC-NEG-03")
def test_an_object_whose_header_names_another_key_version_is_replaced(world: ShippingWorld, recorded, name: str):
    whole = genuine(world, recorded, name)
    # Of the same length, so that nothing else of the header is wrong.
    renamed = re.sub(rb"vault:v(\d)", lambda found: b"vault:v" + bytes([found[1][0] ^ 1]), whole.body, count=1)
    world.bucket.put(wal_object_key(name), renamed, whole.metadata)

    assert_replaced(world, recorded, {name: whole.backup_id})


@pytest.mark.case("TC-NEG-04")
def test_another_files_artefact_copied_to_the_key_is_replaced(world: ShippingWorld, recorded: RecordedWal, name: str):
    other = forged(world, recorded.first[4], recorded.bytes(name), system_identifier=recorded.system_identifier)
    world.bucket.put(wal_object_key(name), other.body, other.metadata)

    assert_replaced(world, recorded, {name: other.backup_id})


@pytest.mark.case("TC-NEG-01")
def test_a_damaged_object_is_replaced_only_as_it_was_seen(world: ShippingWorld, recorded: RecordedWal, name: str):
    world.queue(recorded, name)
    key = wal_object_key(name)
    whole = genuine(world, recorded, name)
    world.bucket.put(key, whole.body[:-1], whole.metadata)
    rivals = iter([whole.body])

    def somebody_repairs_it_first(call: str) -> None:
        if call == "before put_object" and (body := next(rivals, None)):
            world.bucket.put(key, body, whole.metadata)

    report = world.run(bench=world.with_bench(store=store_watched(world.backup, somebody_repairs_it_first)))

    assert found(report) == [("REFUSED", "")]
    assert (world.waiting(), world.backup_id_of(name)) == ([name], whole.backup_id)
    assert world.run().already_there == 1
