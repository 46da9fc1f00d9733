"""PVB1's header: no field can be wrong, forged or written in a second way without being refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from pv_backup.services.envelope import ArtefactContext, EnvelopeWriter, check_key, decrypt, read_header
from pv_backup.services.envelope_header import MAX_CONTEXT_BYTES
from pv_backup.services.errors import ArtefactDamaged, FormatRejected
from tests.unit.services.artefact_samples import CONTEXT, DEK, IV, write


@pytest.mark.case("TC-NEG-04")
def test_a_header_under_another_key_is_refused_before_any_segment_is_read() -> None:
    header = read_header(io.BytesIO(write(b"x")).read)
    check_key(header, DEK)

    def must_not_read(size: int) -> bytes:
        raise AssertionError(f"{size} bytes were asked for before the key was checked")

    with pytest.raises(ArtefactDamaged, match=r"another\s+artefact's, or a byte of the header"):
        decrypt(must_not_read, header=header, dek=bytes(32))
    with pytest.raises(ArtefactDamaged, match="has 16 bytes, AES-256 needs 32"):
        decrypt(must_not_read, header=header, dek=bytes(16))


@pytest.mark.case("TC-NEG-04")
@pytest.mark.parametrize(
    ("offset", "value", "match"),
    [
        (0, b"PVB2", "no PVB1 artefact"),
        (4, b"\x02", "version is 2"),
        (5, b"\x02", "suite is 2"),
        (6, b"\x0f", "segment size .log2. is 15"),
        (6, b"\x19", "segment size .log2. is 25"),
        (7, b"\x01", "flags is 1"),
        (20, (MAX_CONTEXT_BYTES + 1).to_bytes(4), "context length is 65537"),
        (20, b"\xff\xff\xff\xff", "context length is 4294967295"),
    ],
)
def test_every_fixed_field_has_its_refusal(offset: int, value: bytes, match: str) -> None:
    artefact = bytearray(write(b"x"))
    artefact[offset : offset + len(value)] = value
    stream = io.BytesIO(artefact)
    with pytest.raises(ArtefactDamaged, match=match):
        read_header(stream.read)
    assert stream.tell() == 24, "nothing may be read on the word of a bad header"


def with_context(text: bytes) -> bytes:
    artefact = write(b"x")
    return artefact[:20] + len(text).to_bytes(4) + text + bytes(16 + 17)


def changed(**values: object) -> bytes:
    return json.dumps({**asdict(CONTEXT), **values}, sort_keys=True, separators=(",", ":")).encode()


CANONICAL = CONTEXT.to_json()
BAD_CONTEXTS: dict[str, bytes] = {
    "not JSON": b"{",
    "not UTF-8": CANONICAL.replace(b"zstd", b"z\xfftd"),
    "no object": b"[1]",
    "deep": b"[" * MAX_CONTEXT_BYTES,
    "white space": CANONICAL + b"\n",
    "white space inside": CANONICAL.replace(b",", b", ", 1),
    "unsorted": json.dumps(dict(reversed(json.loads(CANONICAL).items())), separators=(",", ":")).encode(),
    "duplicate key": b'{"backup_id":"x",' + CANONICAL[1:],
    "escaped": CANONICAL.replace(b"zstd", rb"\u007astd"),
    "extra key": changed(owner="x"),
    "missing key": json.dumps({"backup_id": CONTEXT.backup_id}).encode(),
    "surrogate": CANONICAL.replace(b"zstd", rb"\ud800"),
    "backup_id": changed(backup_id="0B8F6F0A-0000-4000-8000-00000000000A"),
    "backup_type": changed(backup_type="mysqldump"),
    "object_key": changed(object_key="2026/11/basebackup_20261122.enc"),
    "created_at": changed(created_at="2026-11-22T02:00:00+00:00"),
    "compression": changed(compression="gzip"),
    "wrapped_dek": changed(wrapped_dek="dmVjdG9y"),
    "wrapped_dek v0": changed(wrapped_dek="vault:v0:dmVjdG9y", k_backup_version=0),
    "version differs": changed(k_backup_version=2),
    "version true": changed(wrapped_dek="vault:v1:dmVjdG9y", k_backup_version=True),
    "version text": changed(k_backup_version="3"),
    "version float": changed(k_backup_version=3.0),
    "null": changed(object_key=None),
}


@pytest.mark.case("TC-NEG-04", "TC-NEG-05")
@pytest.mark.parametrize("text", BAD_CONTEXTS.values(), ids=BAD_CONTEXTS.keys())
def test_a_context_that_is_not_exactly_canonical_is_refused(text: bytes) -> None:
    with pytest.raises(ArtefactDamaged, match="context"):
        read_header(io.BytesIO(with_context(text)).read)


@pytest.mark.case("TC-NEG-03", "TC-NEG-05")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda: replace(CONTEXT, k_backup_version=2), "k_backup_version"),
        (lambda: replace(CONTEXT, wrapped_dek="vault:v03:dmVjdG9y"), "wrapped_dek"),
        (lambda: replace(CONTEXT, compression="lz4"), "compression"),
        (lambda: replace(CONTEXT, backup_type="wal"), "s3_object_key_wal"),
        (lambda: replace(CONTEXT, backup_id=7), "backup_id"),
    ],
)
def test_a_bad_context_cannot_be_made_for_writing(change: Callable[[], ArtefactContext], field: str) -> None:
    with pytest.raises(FormatRejected) as refused:
        change()
    assert refused.value.field == field


@pytest.mark.case("TC-NEG-05")
def test_a_context_too_long_for_a_header_is_not_written() -> None:
    context = replace(CONTEXT, wrapped_dek="vault:v3:" + "A" * MAX_CONTEXT_BYTES)
    with pytest.raises(FormatRejected, match="65536 are allowed"):
        EnvelopeWriter(dek=DEK, iv=IV, context=context)
