"""One object being written: parts of any plan, conditions on the key, and a network that loses things (ERR-47-03)."""

from __future__ import annotations

import gc
import os
import threading
import time
import tracemalloc
from urllib.parse import urlsplit

import pytest

from dev.provisioning.keys import SSE_KEY
from pv_backup.services.errors import RefusedError, UploadFailed
from pv_backup.services.multipart import ArtefactUpload, Target
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from tests.integration.backup_world import KEY, MEBIBYTE, s3_client
from tests.integration.bucket_view import BucketView
from tests.integration.faulty_network import relay_to

pytestmark = pytest.mark.case("TC-ERR-03")

METADATA = {"wrapped_dek": "vault:v1:d3JhcHBlZA==", "iv": "0a" * 12, "auth_tag": "0b" * 16, "k_backup_version": "1"}
ENCRYPTION = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": SSE_KEY}
PART = 5 * MEBIBYTE


def permit():
    """The lease is ours."""


@pytest.fixture
def view(bucket):
    return BucketView(bucket)


@pytest.fixture
def relay(stack):
    s3 = urlsplit(stack.s3.endpoint)
    with relay_to(s3.hostname, s3.port) as relay:
        yield relay


@pytest.fixture
def begin(stack, bucket):
    """Begin an upload, with part sizes, address, condition and patience of one's own."""

    def begin(*sizes, relay=None, replace_etag=None, timeout_s=60, metadata=METADATA):
        endpoint = f"http://127.0.0.1:{relay.port}" if relay else stack.s3.endpoint
        return ArtefactUpload(
            client=s3_client(stack, endpoint),
            target=Target(bucket.name, KEY, metadata, ENCRYPTION, replace_etag),
            sizes=iter(sizes or [PART] * 100),
            timeout_s=timeout_s,
            progress=Progress(label=KEY),
        )

    return begin


@pytest.fixture
def store(stack, bucket):
    return ObjectStore(client=s3_client(stack, stack.s3.endpoint), bucket=bucket.name, kms_key_id=SSE_KEY, timeout_s=60)


@pytest.fixture
def garbage_stays():
    """Without the garbage collector, whatever is in a cycle stays in memory, whose size is known."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


def send(upload, body, *, piece=MEBIBYTE):
    for start in range(0, len(body), piece):
        upload.write(body[start : start + piece])


@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1, 2 * PART, 13 * MEBIBYTE + 7])
def test_what_is_written_is_read_back_equal_and_carries_metadata_and_kms(begin, view, size):
    body = os.urandom(size)
    upload = begin()
    send(upload, body)
    assert view.keys() == []
    upload.complete(permit=permit)
    head = view.head(KEY)
    assert view.body(KEY) == body
    assert head["Metadata"] == METADATA
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", SSE_KEY)
    assert view.versions(KEY) == [KEY]
    assert view.open_uploads() == []


def test_parts_that_double_in_size_are_accepted_and_read_back_equal(begin, view):
    body = os.urandom(23 * MEBIBYTE + 11)
    upload = begin(PART, PART, 2 * PART, 4 * PART)
    send(upload, body)
    assert upload.upload_id is not None
    upload.complete(permit=permit)
    assert view.body(KEY) == body


@pytest.mark.case("TC-NOM-02")
def test_objects_that_are_written_stay_in_memory_no_longer(store, garbage_stays):
    """Of a WAL backlog one process writes hundreds; the garbage collector comes when it likes."""
    body = os.urandom(MEBIBYTE)

    def write(number):
        upload = store.begin_upload(
            f"wal/{number}",
            metadata=METADATA,
            replace_etag=None,
            part_bytes=PART,
            expected_bytes=len(body),
            progress=Progress(label=KEY),
        )
        upload.write(body)
        upload.complete(permit=permit)

    write(0)
    before, _ = tracemalloc.get_traced_memory()
    for number in range(1, 9):
        write(number)
    after, _ = tracemalloc.get_traced_memory()
    assert after - before < 2 * len(body)


@pytest.mark.case("TC-INV-04")
@pytest.mark.parametrize("size", [100, PART + 1], ids=["single put", "multipart"])
def test_nothing_appears_when_the_permit_is_refused(begin, view, size):
    upload = begin()
    send(upload, os.urandom(size))

    def refuse():
        raise RefusedError("the lease is gone")

    with pytest.raises(RefusedError, match="the lease is gone"):
        upload.complete(permit=refuse)
    upload.abort()
    assert view.is_untouched()


@pytest.mark.parametrize("size", [100, PART + 1], ids=["single put", "multipart"])
def test_a_key_that_somebody_else_took_meanwhile_is_not_overwritten(begin, view, size):
    upload = begin()
    send(upload, os.urandom(size))
    view.put(KEY, b"published by somebody else")
    with pytest.raises(RefusedError, match=f"{KEY} was written by somebody else"):
        upload.complete(permit=permit)
    upload.abort()
    assert view.body(KEY) == b"published by somebody else"
    assert view.open_uploads() == []


@pytest.mark.parametrize("size", [100, PART + 1], ids=["single put", "multipart"])
def test_a_remnant_is_replaced_on_its_etag(begin, view, store, size):
    view.put(KEY, b"remnant")
    body = os.urandom(size)
    upload = begin(replace_etag=store.head(KEY).etag)
    send(upload, body)
    upload.complete(permit=permit)
    assert view.body(KEY) == body


@pytest.mark.parametrize("size", [100, PART + 1], ids=["single put", "multipart"])
def test_a_remnant_that_changed_meanwhile_is_not_replaced(begin, view, store, size):
    view.put(KEY, b"remnant")
    upload = begin(replace_etag=store.head(KEY).etag)
    send(upload, os.urandom(size))
    view.put(KEY, b"written meanwhile")
    with pytest.raises(RefusedError, match=f"{KEY} was written by somebody else"):
        upload.complete(permit=permit)
    upload.abort()
    assert view.body(KEY) == b"written meanwhile"
    assert view.open_uploads() == []


@pytest.mark.parametrize(
    ("size", "request_line"),
    [(100, b"PUT /"), (PART + 1, b"?uploadId="), (PART + 1, b"partNumber=1"), (PART + 1, b"?uploads")],
    ids=["single put", "completion", "part", "creation"],
)
def test_a_lost_answer_does_not_lose_the_object(begin, view, relay, size, request_line):
    body = os.urandom(size)
    upload = begin(relay=relay)
    relay.lose_answer_to(request_line)
    send(upload, body)
    upload.complete(permit=permit)
    assert relay.lost_answers == 1
    assert view.body(KEY) == body
    assert view.versions(KEY) == [KEY]


@pytest.mark.parametrize("size", [100, PART + 1], ids=["single put", "multipart"])
def test_another_artefact_under_the_key_is_not_mistaken_for_a_lost_answer(begin, view, size):
    upload = begin()
    send(upload, os.urandom(size))
    view.put(KEY, b"another artefact", METADATA | {"iv": "0c" * 12})
    with pytest.raises(RefusedError):
        upload.complete(permit=permit)
    upload.abort()
    assert view.body(KEY) == b"another artefact"


def test_s3_away_for_too_long_fails_by_name_and_what_it_left_can_be_aborted(begin, stack, view, store):
    upload = begin(timeout_s=2)
    send(upload, os.urandom(PART))
    stack.s3.kill()
    with pytest.raises(UploadFailed, match=rf"{KEY}: nothing completed for 2 s") as caught:
        send(upload, os.urandom(4 * PART))
    assert caught.value.code == "ERR-47-03"
    upload.abort()
    stack.s3.start()
    assert view.open_uploads() == [KEY]
    store.abort_open_uploads(KEY)
    assert view.is_untouched()


def test_aborting_what_a_key_has_open_spares_a_longer_key(view, store):
    view.begin_upload(KEY)
    view.begin_upload(KEY)
    view.begin_upload(KEY + ".enc")
    store.abort_open_uploads(KEY)
    assert store.open_uploads(KEY) == []
    assert view.open_uploads() == [KEY + ".enc"]


@pytest.mark.case("TC-INV-04")
def test_an_upload_aborted_by_its_successor_can_neither_go_on_nor_complete(begin, view, store):
    upload = begin()
    send(upload, os.urandom(2 * PART))
    store.abort_open_uploads(KEY)
    with pytest.raises(UploadFailed, match="NoSuchUpload"):
        upload.complete(permit=permit)
    upload.abort()
    assert view.is_untouched()


def test_a_source_that_was_silent_for_long_is_no_stalled_upload(begin, view, relay):
    body = os.urandom(2 * PART)
    upload = begin(relay=relay, timeout_s=3)
    send(upload, body[:PART])
    time.sleep(3.5)
    relay.cut(refusals=1)
    send(upload, body[PART:])
    upload.complete(permit=permit)
    assert relay.refused == 1
    assert view.body(KEY) == body


def test_cancelling_ends_the_wait_for_a_server_that_is_away(begin, stack):
    upload = begin(timeout_s=600)
    send(upload, os.urandom(PART))
    stack.s3.kill()
    threading.Timer(1, upload.cancel).start()
    began = time.monotonic()
    with pytest.raises(UploadFailed):
        send(upload, os.urandom(4 * PART))
    assert time.monotonic() - began < 120
    upload.abort()


def test_a_refusal_that_will_not_pass_is_not_tried_again(stack, bucket):
    upload = ArtefactUpload(
        client=s3_client(stack, stack.s3.endpoint),
        target=Target("a-bucket-of-others", KEY, METADATA, ENCRYPTION),
        sizes=iter([PART]),
        timeout_s=600,
        progress=Progress(label=KEY),
    )
    upload.write(b"some bytes")
    with pytest.raises(UploadFailed, match=r"put_object was refused: AccessDenied \(HTTP 403\)"):
        upload.complete(permit=permit)
    upload.abort()
