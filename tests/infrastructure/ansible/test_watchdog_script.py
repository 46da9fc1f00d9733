"""What the cron watchdog finds in the bucket, and that people get to know it (CC-47-16, INV-47-06)."""

from __future__ import annotations

import socket

import pytest

from pv_backup.services.artefacts import invalid_mark_key, manifest_key
from tests.infrastructure.ansible.watchdog_world import published_backup, watchdog_world
from tests.integration.backup_world import KEY

pytestmark = pytest.mark.case("TC-INF-03", "TC-INV-06")

ABSENT, WRONG, UNKNOWN = 1, 2, 3


@pytest.fixture
def host(stack, bucket, tmp_path):
    with watchdog_world(stack, bucket, tmp_path) as host:
        yield host


@pytest.fixture(params=["curl", "aws"])
def using(request):
    return request.param


@pytest.mark.case("TC-NOM-05")
def test_a_published_backup_is_seen_and_nobody_is_alerted(host, using):
    published = published_backup(host.stack)
    host.settings["BUCKET"] = published.bucket.name
    run = host.run(using=using)
    assert (run.status, run.err) == (0, "")
    assert run.out.startswith(f"{KEY} is there, {len(published.body)} bytes, exported at 20")
    assert host.people.codes == []


def test_without_object_and_manifest_there_is_no_backup(host, using):
    host.finds(ABSENT, "WATCHDOG-ABSENT", "no published backup of 2026-03-29", "neither", KEY, using=using)


def test_an_object_without_its_manifest_is_no_backup(host):
    host.put_backup()
    host.bucket.delete(manifest_key(KEY))
    host.finds(ABSENT, "WATCHDOG-ABSENT", f"{KEY} is there and its manifest is not")


def test_a_manifest_without_its_object_is_no_backup(host):
    host.put_backup()
    host.bucket.delete(KEY)
    host.finds(ABSENT, "WATCHDOG-ABSENT", f"the manifest is there and {KEY} is not")


def test_another_days_backup_is_none_of_this_day(host):
    host.put_backup()
    assert host.run("--day", "2026-03-29", at=None).status == 0
    host.finds(ABSENT, "WATCHDOG-ABSENT", "2026/03/backup_20260330.enc", at="2026-03-30T04:15+02:00")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size_bytes": 4711}, ["bytes, and 4711 by its manifest"]),
        ({"key": "2026/03/backup_20260328.enc"}, ["is of the pg_dump 2026/03/backup_20260328.enc"]),
        ({"backup_type": "basebackup"}, ["is of the basebackup"]),
        ({"header_tag": "00" * 16}, ["auth_tag and header_tag differ"]),
        ({"exported_at": "2026-03-28T22:59:59.5Z"}, ["before the day began"]),
        ({"exported_at": None}, ["is no manifest"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.case("TC-NEG-04")
def test_a_manifest_that_is_not_this_objects_is_told(host, changes, words):
    host.put_backup(**changes)
    host.finds(WRONG, "ERR-47-04", *words)


def test_an_export_just_after_midnight_of_its_day_is_fine(host):
    host.put_backup(exported_at="2026-03-28T23:00:00Z")
    assert host.run().status == 0


@pytest.mark.parametrize("body", [b"", b"\0{", b'{"key": "2026/03/ba', b"[1]", b"{} {}"], ids=repr)
def test_a_manifest_that_is_none_is_told(host, body):
    host.put_backup()
    host.bucket.put(manifest_key(KEY), body)
    host.finds(WRONG, "ERR-47-04", "is no manifest")


def test_a_cut_object_is_told(host):
    host.put_backup()
    host.bucket.overwrite(KEY, host.bucket.body(KEY)[:-1])
    host.finds(WRONG, "ERR-47-04", "by its manifest")


@pytest.mark.parametrize(
    ("size", "least"), [(0, None), (100, None), (None, "1000000")], ids=["empty", "tiny", "setting"]
)
def test_an_object_that_is_too_small_is_told_even_if_its_manifest_agrees(host, size, least):
    body = published_backup(host.stack).body[:size]
    host.put_backup(size_bytes=len(body))
    host.bucket.overwrite(KEY, body)
    host.settings["MIN_BYTES"] = least
    host.finds(WRONG, "ERR-47-04", f"{len(body)} bytes, less than MIN_BYTES")


@pytest.mark.case("TC-NEG-01")
def test_a_backup_that_was_marked_invalid_since_is_told(host):
    host.put_backup()
    manifest = published_backup(host.stack).manifest
    mark = {name: manifest[name] for name in ("backup_id", "header_tag")}
    host.bucket.put(invalid_mark_key(KEY), str(mark).replace("'", '"').encode())
    host.finds(WRONG, "ERR-47-04", "marked invalid")


def test_a_mark_of_an_earlier_object_of_the_day_counts_no_more(host):
    host.put_backup()
    host.bucket.put(invalid_mark_key(KEY), b'{"backup_id": "another", "header_tag": "another"}')
    assert host.run().status == 0


@pytest.mark.parametrize("body", [b"", b"half a ma"], ids=repr)
def test_a_mark_that_nobody_can_read_counts(host, body):
    host.put_backup()
    host.bucket.put(invalid_mark_key(KEY), body)
    host.finds(WRONG, "ERR-47-04", "marked invalid")


def test_an_s3_that_is_down_is_told(host, using):
    host.stack.s3.kill()
    host.finds(UNKNOWN, "ERR-47-03", "could not be seen: S3 does not answer (", "onnect to", using=using)


def test_an_s3_that_refuses_the_key_is_told(host, using):
    host.vault.keep("ci/aws-backup-watchdog", access_key_id=host.key.access_key, secret_access_key="not the secret")
    host.finds(UNKNOWN, "ERR-47-03", "S3 refuses to show", "SignatureDoesNotMatch", using=using)


def test_a_bucket_that_is_not_there_is_no_absent_backup(host, using):
    host.settings["BUCKET"] = "pv-backup-test-nowhere"
    host.finds(UNKNOWN, "ERR-47-03", "NoSuchBucket", using=using)


def test_an_s3_that_takes_the_question_and_never_answers_is_told(host):
    assert host.run("--no-alert").status == ABSENT  # so that a Vault that is slow for once changes nothing
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host.settings |= {"S3_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "TIMEOUT_S": "8"}
        host.finds(UNKNOWN, "ERR-47-03", "S3 does not answer", "timed out")
