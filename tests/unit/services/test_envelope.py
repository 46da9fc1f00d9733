"""PVB1 as FORMAT.md states it: the vectors, every size around a segment boundary, every way to forge."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pv_backup.services.envelope import (
    ArtefactContext,
    EnvelopeWriter,
    check_key,
    decrypt,
    new_iv,
    read_header,
)
from pv_backup.services.envelope_header import MAX_CONTEXT_BYTES
from pv_backup.services.errors import ArtefactDamaged, FormatRejected
from pv_backup.services.hashing import Sha3, sha3_256_hex
from pv_backup.services.key_wrapping import new_dek

VECTORS = Path(__file__).parents[2] / "vectors"
LOG2 = 16
SEGMENT = 1 << LOG2
SEALED = SEGMENT + 16
DEK = bytes(range(32))
IV = bytes(range(100, 112))
CONTEXT = ArtefactContext(
    backup_id="0b8f6f0a-0000-4000-8000-00000000000a",
    backup_type="pg_dump",
    object_key="2026/11/backup_20261122.enc",
    created_at="2026-11-22T02:00:00Z",
    compression="zstd",
    wrapped_dek="vault:v3:dmVjdG9y",
    k_backup_version=3,
)
NOISE = os.urandom(3 * SEGMENT + 2)


def write(plaintext: bytes, *, chunk: int = 1 << 20, dek: bytes = DEK, context: ArtefactContext = CONTEXT) -> bytes:
    writer = EnvelopeWriter(dek=dek, iv=IV, context=context, segment_log2=LOG2)
    pieces = [writer.header.raw]
    for start in range(0, len(plaintext), chunk):
        pieces += writer.update(plaintext[start : start + chunk])
    return b"".join([*pieces, writer.finish()])


def read(artefact: bytes, *, dek: bytes = DEK, at_most: int | None = None) -> bytes:
    stream = io.BytesIO(artefact)
    reader = stream.read if at_most is None else lambda size: stream.read(min(size, at_most))
    header = read_header(reader)
    return b"".join(decrypt(reader, header=header, dek=dek))


def released_before_refusal(artefact: bytes, match: str | None = None) -> bytes:
    released = bytearray()

    def consume() -> None:
        stream = io.BytesIO(artefact)
        for piece in decrypt(stream.read, header=read_header(stream.read), dek=DEK):
            released.extend(piece)

    with pytest.raises(ArtefactDamaged, match=match):
        consume()
    return bytes(released)


def header_size() -> int:
    return len(EnvelopeWriter(dek=DEK, iv=IV, context=CONTEXT).header.raw)


def segments_of(artefact: bytes) -> tuple[bytes, list[bytes]]:
    start = header_size()
    return artefact[:start], [artefact[i : i + SEALED] for i in range(start, len(artefact), SEALED)]


def vectors() -> list[dict[str, Any]]:
    return json.loads((VECTORS / "vectors.json").read_text())


def plaintext_of(vector: dict[str, Any]) -> bytes:
    size = vector["plaintext"]["size"]
    return (bytes(range(256)) * (size // 256 + 1))[:size]


@pytest.mark.case("TC-NR-05", "TC-NR-01")
@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["file"])
def test_vectors_are_written_and_read_byte_for_byte(vector: dict[str, Any]) -> None:
    dek, iv = bytes.fromhex(vector["dek_hex"]), bytes.fromhex(vector["iv_hex"])
    plaintext = plaintext_of(vector)
    stored = (VECTORS / vector["file"]).read_bytes()
    writer = EnvelopeWriter(
        dek=dek, iv=iv, context=ArtefactContext(**vector["context"]), segment_log2=vector["segment_log2"]
    )
    assert b"".join([writer.header.raw, *writer.update(plaintext), writer.finish()]) == stored
    assert writer.header.tag.hex() == vector["auth_tag_hex"]
    assert len(stored) == vector["artefact_size"]

    stream = io.BytesIO(stored)
    header = read_header(stream.read)
    assert (asdict(header.context), header.iv, header.raw) == (vector["context"], iv, writer.header.raw)
    recovered = Sha3()
    for piece in decrypt(stream.read, header=header, dek=dek):
        recovered.update(piece)
    assert recovered.hexdigest() == vector["plaintext"]["sha3_256_hex"] == sha3_256_hex(plaintext)


@pytest.mark.case("TC-NR-01")
@given(
    size=st.one_of(
        st.builds(lambda n, d: max(0, n * SEGMENT + d), st.integers(0, 3), st.integers(-2, 2)),
        st.integers(0, 3 * SEGMENT),
    ),
    chunk=st.one_of(st.sampled_from([SEGMENT - 1, SEGMENT, SEGMENT + 1, 4 * SEGMENT]), st.integers(500, 3 * SEGMENT)),
    at_most=st.one_of(st.none(), st.integers(700, 2 * SEGMENT)),
)
@example(size=0, chunk=1, at_most=1)
@example(size=SEGMENT, chunk=SEGMENT, at_most=None)
@example(size=2 * SEGMENT, chunk=SEGMENT, at_most=SEALED)
@settings(deadline=None, max_examples=60)
def test_any_size_in_any_chunks_comes_back(size: int, chunk: int, at_most: int | None) -> None:
    plaintext = NOISE[:size]
    artefact = write(plaintext, chunk=chunk)
    assert read(artefact, at_most=at_most) == plaintext
    assert len(artefact) == header_size() + size + 16 * max(1, -(-size // SEGMENT))


@pytest.mark.case("TC-NR-01")
def test_empty_updates_and_views_change_nothing() -> None:
    writer = EnvelopeWriter(dek=bytearray(DEK), iv=IV, context=CONTEXT, segment_log2=LOG2)
    pieces = [*writer.update(b""), *writer.update(bytearray(NOISE[:SEGMENT])), *writer.update(b"")]
    assert pieces == [], "a full segment is held back: it may be the last"
    pieces += writer.update(memoryview(NOISE)[SEGMENT : 2 * SEGMENT])
    assert [len(piece) for piece in pieces] == [SEALED]
    assert b"".join([writer.header.raw, *pieces, writer.finish()]) == write(NOISE[: 2 * SEGMENT])


@pytest.mark.case("TC-NR-01", "TC-INV-02")
def test_a_finished_writer_refuses_more() -> None:
    writer = EnvelopeWriter(dek=DEK, iv=IV, context=CONTEXT)
    writer.finish()
    with pytest.raises(RuntimeError, match="finished"):
        writer.update(b"x")
    with pytest.raises(RuntimeError, match="finished"):
        writer.finish()


@pytest.mark.case("TC-INV-03")
@pytest.mark.parametrize(
    ("dek", "iv", "log2"),
    [(DEK[:16], IV, 20), (DEK + b"x", IV, 20), (DEK, IV[:8], 20), (DEK, IV, 15), (DEK, IV, 25)],
)
def test_the_writer_knows_aes_256_gcm_and_nothing_else(dek: bytes, iv: bytes, log2: int) -> None:
    with pytest.raises(ValueError, match="PVB1"):
        EnvelopeWriter(dek=dek, iv=iv, context=CONTEXT, segment_log2=log2)


@pytest.mark.case("TC-INV-02")
def test_keys_and_ivs_do_not_repeat() -> None:
    drawn = [(bytes(new_dek()), new_iv()) for _ in range(1000)]
    assert {(len(dek), len(iv)) for dek, iv in drawn} == {(32, 12)}
    assert len({dek for dek, _ in drawn}) == len({iv for _, iv in drawn}) == 1000


@pytest.mark.case("TC-NEG-01", "TC-NEG-04")
@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=250)
def test_any_flipped_bit_is_refused_and_no_byte_of_its_segment_released(position: int, bit: int) -> None:
    plaintext = NOISE[: SEGMENT + 40]
    artefact = bytearray(write(plaintext))
    position %= len(artefact)
    artefact[position] ^= 1 << bit
    released = released_before_refusal(bytes(artefact))
    intact_segments = max(0, position - header_size()) // SEALED
    assert released == plaintext[: intact_segments * SEGMENT]


@pytest.mark.case("TC-NEG-01", "TC-NEG-04")
def test_every_bit_of_header_and_tags_is_authenticated() -> None:
    artefact = write(b"evidence")
    assert read(artefact) == b"evidence"
    for position in range(len(artefact)):
        for bit in range(8):
            forged = bytearray(artefact)
            forged[position] ^= 1 << bit
            assert released_before_refusal(bytes(forged)) == b"", f"byte {position}, bit {bit}"


@pytest.mark.case("TC-NEG-02")
@given(kept=st.integers(min_value=0))
@settings(deadline=None, max_examples=150)
def test_any_truncation_is_refused(kept: int) -> None:
    artefact = write(NOISE[: 2 * SEGMENT + 5])
    with pytest.raises(ArtefactDamaged):
        read(artefact[: kept % len(artefact)])


@pytest.mark.case("TC-NEG-02")
@pytest.mark.parametrize("whole", [1, 2])
def test_a_cut_at_a_segment_boundary_is_told_as_such(whole: int) -> None:
    artefact = write(NOISE[: 3 * SEGMENT])
    cut = artefact[: header_size() + whole * SEALED]
    released = released_before_refusal(cut, f"segment {whole} is not the last one.*cut at a segment boundary")
    assert released == NOISE[: (whole - 1) * SEGMENT]


@pytest.mark.case("TC-NEG-02")
def test_an_artefact_without_segments_is_refused() -> None:
    assert released_before_refusal(write(b"")[:-16], "segment 1 is cut: 0 bytes") == b""


@pytest.mark.case("TC-NEG-01")
@pytest.mark.parametrize("rows", [(2, 1, 3), (1, 1, 2, 3), (1, 3), (1, 2, 2, 3), (1, 2, 3, 3)], ids=str)
def test_swapped_repeated_and_dropped_segments_are_refused(rows: tuple[int, ...]) -> None:
    header, segments = segments_of(write(NOISE[: 2 * SEGMENT + 9]))
    with pytest.raises(ArtefactDamaged, match="segment"):
        read(header + b"".join(segments[row - 1] for row in rows))


@pytest.mark.case("TC-NEG-01")
@pytest.mark.parametrize("size", [0, 5, SEGMENT, 2 * SEGMENT])
@pytest.mark.parametrize("tail", [b"\0", b"\0" * 16, NOISE[:SEALED]], ids=len)
def test_appended_bytes_are_refused(size: int, tail: bytes) -> None:
    with pytest.raises(ArtefactDamaged, match="segment"):
        read(write(NOISE[:size]) + tail)


@pytest.mark.case("TC-NEG-01")
def test_appending_to_full_segments_is_told_as_such() -> None:
    released_before_refusal(write(NOISE[:SEGMENT]) + b"more", "segment 1 is the last one, but bytes follow")


@pytest.mark.case("TC-NEG-01", "TC-NEG-04")
def test_segments_of_another_artefact_are_refused_even_under_the_same_key_and_iv() -> None:
    other = replace(CONTEXT, backup_id="0b8f6f0a-0000-4000-8000-00000000000b")
    header, mine = segments_of(write(NOISE[: 2 * SEGMENT]))
    _, theirs = segments_of(write(NOISE[: 2 * SEGMENT], context=other))
    with pytest.raises(ArtefactDamaged, match="segment 2 fails authentication"):
        read(header + mine[0] + theirs[1])


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


@pytest.mark.case("TC-INV-03")
def test_an_empty_trailing_segment_is_refused_although_it_is_authentic() -> None:
    """Only a writer that holds the key can make one, and none of ours does: one plaintext, one artefact."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header = read_header(io.BytesIO(write(b"")).read)

    def seal(number: int, data: bytes, last: bool) -> bytes:
        nonce = IV[:4] + (int.from_bytes(IV[4:]) ^ number).to_bytes(8)
        return AESGCM(DEK).encrypt(nonce, data, header.tag + number.to_bytes(8) + bytes([last]))

    plaintext = NOISE[:SEGMENT]
    assert write(plaintext) == header.raw + seal(1, plaintext, True)
    artefact = header.raw + seal(1, plaintext, False) + seal(2, b"", True)
    assert released_before_refusal(artefact, "segment 2 is empty") == plaintext
