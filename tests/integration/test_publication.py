"""The manifest, written last, makes an object a backup; and only one that speaks of that very object (SPEC F1.6)."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from pv_backup.services.artefacts import ArtefactType, manifest_key, object_key_of_day
from pv_backup.services.errors import ReadBackMismatch, RefusedError
from pv_backup.services.manifest import InvalidMark, mark_invalid, published
from tests.integration.backup_world import DAY, KEY, backup_world

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

    def allowed():
        pass

    world.bucket.put_manifest(KEY, {"backup_id": "theirs"})
    with pytest.raises(RefusedError, match="was written by somebody else meanwhile"):
        world.bench.store.put_document(manifest_key(KEY), document, replace_etag=None, permit=allowed)
    read = world.bench.store.get_document(manifest_key(KEY))
    world.bucket.put_manifest(KEY, {"backup_id": "theirs again"})
    with pytest.raises(RefusedError, match="was written by somebody else meanwhile"):
        world.bench.store.put_document(manifest_key(KEY), document, replace_etag=read.etag, permit=allowed)
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
def test_what_is_no_manifest_says_nothing_and_is_replaced(world, attempt, body):
    world.bucket.put(manifest_key(KEY), body)
    assert published(world.bench.store, KEY) is None
    world.publish(attempt)
    assert published(world.bench.store, KEY).backup_id == attempt.backup_id


@pytest.mark.case("TC-NEG-04")
def test_a_manifest_of_another_format_says_nothing_and_is_told_of(world, attempt, caplog):
    strange = world.publish(attempt).to_json() | {"format_version": 2, "colour": "red"}
    world.bucket.put_manifest(KEY, strange)
    assert published(world.bench.store, KEY) is None
    assert "wrong or missing colour, format_version" in caplog.text


@pytest.mark.case("TC-NEG-04")
def test_yesterdays_backup_copied_under_todays_keys_is_none(world, attempt):
    manifest = world.publish(attempt).to_json()
    other = object_key_of_day(ArtefactType.PG_DUMP, DAY + timedelta(days=1))
    world.bucket.put(other, world.bucket.body(KEY))
    world.bucket.put_manifest(other, manifest)
    assert published(world.bench.store, other) is None
    world.bucket.put_manifest(other, manifest | {"key": other})
    assert published(world.bench.store, other) is None


@pytest.mark.case("TC-INV-04", "TC-ERR-04")
def test_a_backup_marked_invalid_since_is_none(world, attempt):
    manifest = world.publish(attempt)
    mark = InvalidMark(
        backup_id=str(uuid4()),
        key=KEY,
        hash_sha3_256=manifest.hash_sha3_256,
        header_tag=manifest.header_tag,
        reason="found damaged",
        found_at=manifest.finished_at,
    )
    mark_invalid(world.bench.store, mark)
    assert published(world.bench.store, KEY) == manifest  # a mark of another attempt says nothing
    mark_invalid(world.bench.store, mark.model_copy(update={"backup_id": manifest.backup_id}))
    assert published(world.bench.store, KEY) is None


@pytest.mark.case("TC-INV-04")
def test_what_was_not_read_back_is_neither_published_nor_a_success(world, attempt):
    world.export(attempt)  # a task cleared after the verification uploads anew
    with pytest.raises(RefusedError, match="was not read back since its last upload"):
        world.publish(attempt)
    with pytest.raises(RefusedError, match="was not read back since its last upload"):
        world.succeed(attempt)
    assert world.bucket.manifest(KEY) is None
