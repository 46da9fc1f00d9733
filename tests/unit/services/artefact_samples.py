"""Small artefacts to write, read and damage, shared by the tests of PVB1."""

from __future__ import annotations

import io
import os

import pytest

from pv_backup.services.envelope import ArtefactContext, EnvelopeWriter, decrypt, read_header
from pv_backup.services.errors import ArtefactDamaged

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
