"""PVB1's segments: the vectors, every size around a boundary, every way to damage one."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pv_backup.services.envelope import ArtefactContext, EnvelopeWriter, decrypt, new_iv, read_header
from pv_backup.services.errors import ArtefactDamaged
from pv_backup.services.hashing import Sha3, sha3_256_hex
from pv_backup.services.key_wrapping import new_dek
from tests.unit.services.artefact_samples import (
    CONTEXT,
    DEK,
    IV,
    LOG2,
    NOISE,
    SEALED,
    SEGMENT,
    header_size,
    read,
    released_before_refusal,
    segments_of,
    write,
)

VECTORS = Path(__file__).parents[2] / "vectors"


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
