"""Reading back what was uploaded: whatever was done to the object is found, marked, and never published (ERR-47-04)."""

from __future__ import annotations

import threading
from datetime import timedelta

import hvac
import pytest

from pv_backup.services.errors import ArtefactDamaged, FailClosedError, IntegrityError, ReadBackMismatch
from pv_backup.services.key_wrapping import TransitKeyWrapper
from pv_backup.services.manifest import stored_header
from pv_backup.services.verification import Expected, verify_object
from tests.integration.backup_world import DAY, KEY, MEBIBYTE, backup_world
from tests.integration.vault_world import address_nobody_listens_at

pytestmark = pytest.mark.case("TC-ERR-04", "TC-INV-04")

SEALED = MEBIBYTE + 16


@pytest.fixture
def world(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket) as world:
        world.fill(3)
        yield world


@pytest.fixture
def attempt(world):
    return world.exported()


def assert_found_and_marked(world, attempt, error, match):
    with pytest.raises(error, match=match) as caught:
        world.verify(attempt)
    assert caught.value.code == "ERR-47-04"
    row = world.journal.row()
    mark = world.bucket.mark(KEY)
    assert mark.pop("found_at").endswith("Z")
    assert mark == {
        "format_version": 1,
        "backup_id": attempt.backup_id,
        "key": KEY,
        "hash_sha3_256": row["hash_sha3_256"],
        "header_tag": row["auth_tag"],
        "reason": caught.value.what,
    }
    assert world.bucket.manifest(KEY) is None


def flipped(body, position):
    changed = bytearray(body)
    changed[position] ^= 1
    return bytes(changed)


def test_an_untouched_object_is_verified_and_not_marked(world, attempt):
    world.verify(attempt)
    assert world.bucket.keys() == [KEY]


@pytest.mark.case("TC-NEG-01")
@pytest.mark.parametrize(
    ("place", "match"),
    [
        (lambda header, size: 3, "PVB1"),
        (lambda header, size: 10, "header"),
        (lambda header, size: header - 1, "header"),
        (lambda header, size: header + SEALED + 4711, "segment 2 fails authentication"),
        (lambda header, size: size - 1, "segment 4 fails authentication"),
    ],
    ids=["magic", "IV", "header tag", "segment in the middle", "last tag"],
)
def test_one_flipped_byte_is_found(world, attempt, place, match):
    header = stored_header(world.bench.store, KEY)
    body = world.bucket.body(KEY)
    world.bucket.overwrite(KEY, flipped(body, place(len(header.raw), len(body))))
    assert_found_and_marked(world, attempt, ArtefactDamaged, match)


@pytest.mark.case("TC-NEG-02")
@pytest.mark.parametrize(
    ("kept", "match"),
    [
        (lambda header, size: header + 2 * SEALED, "segment 2 is not the last one: the artefact is cut"),
        (lambda header, size: header, "segment 1 is cut"),
        (lambda header, size: size - 1, "segment 4 fails authentication"),
        (lambda header, size: header // 2, "header"),
        (lambda header, size: 0, "header"),
    ],
    ids=["at a segment boundary", "after the header", "by one byte", "in the header", "to nothing"],
)
def test_a_truncated_object_is_found(world, attempt, kept, match):
    header = stored_header(world.bench.store, KEY)
    body = world.bucket.body(KEY)
    world.bucket.overwrite(KEY, body[: kept(len(header.raw), len(body))])
    assert_found_and_marked(world, attempt, ArtefactDamaged, match)


@pytest.mark.case("TC-NEG-02")
def test_appended_bytes_are_found(world, attempt):
    world.bucket.overwrite(KEY, world.bucket.body(KEY) + b"\0")
    assert_found_and_marked(world, attempt, ArtefactDamaged, "segment 4")


@pytest.mark.case("TC-NEG-04")
def test_an_artefact_of_another_day_in_its_place_is_found(world, attempt):
    other = world.open(day=DAY + timedelta(days=1))
    world.export(other)
    world.bucket.put(KEY, world.bucket.body(other.object_key), world.bucket.head(other.object_key)["Metadata"])
    with pytest.raises(ReadBackMismatch, match=f"backup_id in the header is '{other.backup_id}'"):
        world.verify(attempt)
    assert world.bucket.mark(KEY)["backup_id"] == attempt.backup_id


@pytest.mark.case("TC-NEG-04")
def test_an_earlier_try_of_the_same_attempt_in_its_place_is_found(world, attempt):
    body, metadata = world.bucket.body(KEY), world.bucket.head(KEY)["Metadata"]
    world.export(attempt)
    world.bucket.put(KEY, body, metadata)
    assert_found_and_marked(world, attempt, ReadBackMismatch, "header tag is")


@pytest.mark.case("TC-NEG-04")
@pytest.mark.parametrize("field", ["wrapped_dek", "iv", "auth_tag"])
def test_metadata_of_another_artefact_is_found(world, attempt, field):
    other = world.open(day=DAY + timedelta(days=1))
    world.export(other)
    forged = world.bucket.head(other.object_key)["Metadata"][field]
    world.bucket.overwrite(KEY, metadata={field: forged})
    with pytest.raises(ReadBackMismatch, match=f"S3 metadata is .*{field}"):
        world.verify(attempt)
    assert world.bucket.mark(KEY)["backup_id"] == attempt.backup_id


@pytest.mark.case("TC-NEG-03", "TC-NEG-04")
def test_another_key_version_in_the_metadata_is_found(world, attempt):
    world.bucket.overwrite(KEY, metadata={"k_backup_version": "77"})
    assert_found_and_marked(world, attempt, ReadBackMismatch, "S3 metadata is .*'k_backup_version': '77'")


@pytest.mark.case("TC-NEG-03", "TC-NEG-04")
def test_another_key_version_in_the_header_is_found(world, attempt):
    body = world.bucket.body(KEY)
    version = world.bucket.head(KEY)["Metadata"]["k_backup_version"]
    assert len(version) == 1, "the header keeps its length"
    world.bucket.overwrite(KEY, body.replace(f"vault:v{version}:".encode(), b"vault:v9:", 1))
    assert_found_and_marked(world, attempt, IntegrityError, "version")


def test_an_object_that_is_gone_is_named(world, attempt):
    world.bucket.delete(KEY)
    assert_found_and_marked(world, attempt, ReadBackMismatch, f"{KEY} is not there although its upload was completed")


@pytest.mark.case("TC-ERR-02")
def test_an_unreachable_vault_is_no_reason_to_mark_an_object(world, attempt):
    nobody = hvac.Client(url=f"http://{address_nobody_listens_at()}", token="any")
    elsewhere = world.with_bench(keys=TransitKeyWrapper(client=nobody, key_name="pv-backup"))
    with pytest.raises(FailClosedError, match="Vault is unreachable"):
        elsewhere.verify(attempt)
    assert world.bucket.mark(KEY) is None
    world.verify(attempt)


class KeysWithIncident:
    """The real key service, and something that happens between the header's and the first segment's reading.

    The first unwrapping is of the key that S3's metadata names, before anything is downloaded.
    """

    def __init__(self, keys, incident):
        self._keys = keys
        self._incidents = iter([lambda: None, incident])

    def unwrap(self, wrapped_dek):
        dek = self._keys.unwrap(wrapped_dek)
        next(self._incidents)()
        return dek


def verify_during(world, attempt, incident):
    expected = Expected.by_journal(attempt, world.bench.machine.artefact_of(attempt))
    verify_object(world.bench.store, KeysWithIncident(world.bench.keys, incident), KEY, expected)


@pytest.mark.case("TC-ERR-03")
def test_an_s3_server_killed_during_the_read_back_is_waited_for(stack, source_db, journal_db, bucket, caplog):
    with backup_world(stack, source_db, journal_db, bucket) as world:
        world.fill(16)  # more than the kernel buffers of one connection hold
        attempt = world.exported()
        restart = threading.Timer(2, stack.s3.start)

        def kill_for_some_seconds():
            stack.s3.kill()
            restart.start()

        verify_during(world, attempt, kill_for_some_seconds)
        restart.join()
        assert "Retrying" in caplog.text


@pytest.mark.case("TC-NEG-04")
def test_an_object_replaced_during_the_read_back_is_not_read_on(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket) as world:
        world.fill(16)
        attempt = world.exported()

        def replace_and_break_the_connection():
            world.bucket.put(KEY, world.bucket.body(KEY))
            stack.s3.kill()
            stack.s3.start()

        with pytest.raises(ReadBackMismatch, match=f"{KEY} is gone or was replaced while it was read"):
            verify_during(world, attempt, replace_and_break_the_connection)


@pytest.mark.case("TC-NR-02")
def test_the_same_bytes_under_another_etag_are_the_same_artefact(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket, part_size_mb=5) as world:
        world.fill(7)
        attempt = world.exported()
        of_the_upload = world.bench.store.head(KEY).etag
        world.bucket.overwrite(KEY, world.bucket.body(KEY))
        assert world.bench.store.head(KEY).etag != of_the_upload  # a multipart ETag is no digest of the bytes
        world.verify(attempt)
