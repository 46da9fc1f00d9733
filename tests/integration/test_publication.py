"""The manifest, written last, makes an object a backup; and only one that speaks of that very object (SPEC F1.6)."""

from __future__ import annotations

from uuid import uuid4

import pytest

from pv_backup.services.artefacts import manifest_key
from pv_backup.services.errors import ReadBackMismatch, RefusedError
from pv_backup.services.manifest import published
from tests.integration.backup_world import KEY, backup_world

pytestmark = pytest.mark.case("TC-NOM-01")


@pytest.fixture
def world(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket) as world:
        yield world


@pytest.fixture
def attempt(world):
    attempt = world.exported()
    world.verify(attempt)
    return attempt


def test_an_object_without_its_manifest_is_no_backup(world, attempt):
    assert world.bucket.keys() == [KEY]
    assert published(world.bench.store, KEY) is None


def test_a_manifest_without_its_object_is_no_backup(world, attempt):
    world.publish(attempt)
    world.bucket.delete(KEY)
    assert published(world.bench.store, KEY) is None


def test_a_second_try_finds_its_own_manifest_and_is_content(world, attempt):
    first = world.publish(attempt)
    assert world.publish(attempt) == first == published(world.bench.store, KEY)
    assert world.bucket.versions(manifest_key(KEY)) == [manifest_key(KEY)]


def test_the_manifest_of_an_earlier_attempt_is_replaced(world, attempt):
    stale = world.publish(attempt).to_json() | {"backup_id": str(uuid4())}
    world.bucket.put_manifest(KEY, stale)
    assert published(world.bench.store, KEY) is None
    assert world.publish(attempt).backup_id == attempt.backup_id
    assert world.bucket.manifest(KEY)["backup_id"] == attempt.backup_id
    assert published(world.bench.store, KEY).backup_id == attempt.backup_id


def test_of_two_manifests_written_at_once_the_first_stands(world, attempt):
    document = {"backup_id": "ours"}
    world.bucket.put_manifest(KEY, {"backup_id": "theirs"})
    with pytest.raises(RefusedError, match="was written by somebody else meanwhile"):
        world.bench.store.put_document(manifest_key(KEY), document, replace_etag=None)
    read = world.bench.store.get_document(manifest_key(KEY))
    world.bucket.put_manifest(KEY, {"backup_id": "theirs again"})
    with pytest.raises(RefusedError, match="was written by somebody else meanwhile"):
        world.bench.store.put_document(manifest_key(KEY), document, replace_etag=read.etag)
    assert world.bucket.manifest(KEY) == {"backup_id": "theirs again"}


@pytest.mark.case("TC-INV-04")
def test_an_object_exchanged_after_its_verification_is_not_published(world, attempt):
    world.bucket.overwrite(KEY, metadata={"auth_tag": "0b" * 16})
    with pytest.raises(ReadBackMismatch, match="no longer the object that was verified"):
        world.publish(attempt)
    world.bucket.delete(KEY)
    with pytest.raises(ReadBackMismatch, match="no longer the object that was verified"):
        world.publish(attempt)
    assert world.bucket.manifest(KEY) is None


@pytest.mark.case("TC-INV-04")
def test_an_attempt_that_exported_nothing_is_not_published(world):
    with pytest.raises(RefusedError, match="has no recorded artefact"):
        world.publish(world.open())
    assert world.bucket.is_untouched()


@pytest.mark.case("TC-NEG-04")
@pytest.mark.parametrize("body", [b"{}", b"[]", b"no json", b"\xff"], ids=["empty", "list", "text", "bytes"])
def test_what_is_no_manifest_is_refused_by_name(world, attempt, body):
    world.bucket.put(manifest_key(KEY), body)
    with pytest.raises(ReadBackMismatch, match=manifest_key(KEY)):
        world.publish(attempt)


@pytest.mark.case("TC-NEG-04")
def test_a_manifest_of_another_format_says_which_fields_are_wrong(world, attempt):
    strange = world.publish(attempt).to_json() | {"format_version": 2, "colour": "red"}
    world.bucket.put_manifest(KEY, strange)
    with pytest.raises(ReadBackMismatch, match="wrong or missing colour, format_version"):
        published(world.bench.store, KEY)
