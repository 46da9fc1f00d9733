"""PVB1: encrypt and decrypt artefacts as streams, in constant memory (FORMAT: Segments, INV-47-03).

Every segment is authenticated, numbered, and bound to the header, so that a reader hands on nothing that
it has not checked. That is the STREAM construction, with the nonces of NIST SP 800-38D section 8.2.1.

Bounds: a key serves one artefact under one IV, hence a nonce repeats only after 2^64 segments; S3 ends
at 5 TiB, below 2^27 segments of the smallest size. A segment has at most 16 MiB where GCM allows 64 GiB.

Copies: pyca/cryptography keeps the key inside OpenSSL for the life of the writer or reader, out of reach
of any wipe (docs/security.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pv_backup.services.envelope_header import (
    FETCH_AGAIN,
    TAG_BYTES,
    ArtefactContext,
    Header,
    Read,
    check_key,
    key_version_of,
    make_header,
    new_iv,
    read_header,
)
from pv_backup.services.errors import ArtefactDamaged

__all__ = [
    "ArtefactContext",
    "EnvelopeWriter",
    "Header",
    "check_key",
    "decrypt",
    "key_version_of",
    "new_iv",
    "read_header",
]

DEFAULT_SEGMENT_LOG2: Final = 20
# Larger pieces come from fresh pages each time: 0.8 GiB/s of decryption instead of 1.3 on the same busy core.
_READ_BYTES: Final = 256 << 10


class _Segments:
    """The key schedule of one artefact: which nonce and associated data each segment has."""

    def __init__(self, header: Header, dek: bytes | bytearray) -> None:
        self._cipher = AESGCM(dek)
        self._iv_prefix = header.iv[:4]
        self._iv_counter = int.from_bytes(header.iv[4:])
        self._tag = header.tag

    def seal(self, number: int, plaintext: memoryview, *, last: bool) -> bytes:
        return self._cipher.encrypt(*self._parameters(number, plaintext, last=last))

    def open(self, number: int, sealed: memoryview, *, last: bool) -> bytes:
        return self._cipher.decrypt(*self._parameters(number, sealed, last=last))

    def _parameters(self, number: int, data: memoryview, *, last: bool) -> tuple[bytes, memoryview, bytes]:
        nonce = self._iv_prefix + (self._iv_counter ^ number).to_bytes(8)
        return nonce, data, self._tag + number.to_bytes(8) + bytes([last])


class EnvelopeWriter:
    """Encrypts one artefact; the caller puts `header.raw`, then every piece, in a row.

    Only :meth:`finish` knows which segment is the last one, so the writer holds back up to one segment.

    :param dek: 32 bytes, of this artefact alone; the caller wipes it.
    :param iv: 12 bytes from :func:`new_iv`, of this artefact alone.
    :param segment_log2: 16 to 24; memory is a few times 2 to that power.
    :raises ValueError: for a key, IV or segment size that PVB1 does not have.
    :raises FormatRejected: for a context that is too long.
    """

    def __init__(
        self,
        *,
        dek: bytes | bytearray,
        iv: bytes,
        context: ArtefactContext,
        segment_log2: int = DEFAULT_SEGMENT_LOG2,
    ) -> None:
        self.header = make_header(dek=dek, iv=iv, context=context, segment_log2=segment_log2)
        self._segments = _Segments(self.header, dek)
        self._sealed = 0
        self._held = bytearray(self.header.segment_bytes)
        self._held_bytes = 0
        self._finished = False

    def update(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take the next plaintext; give back the segments that it filled, none of them the last.

        A byte is copied at most once, on its way into a segment that it does not fill.

        :raises RuntimeError: after :meth:`finish`.
        """
        self._refuse_after_finish()
        view = memoryview(data).cast("B")
        size = self.header.segment_bytes
        ready: list[bytes] = []
        if self._held_bytes:
            view = view[self._hold(view) :]
            if not view:
                return ready
            ready.append(self._seal(memoryview(self._held), last=False))
            self._held_bytes = 0
        while len(view) > size:
            ready.append(self._seal(view[:size], last=False))
            view = view[size:]
        self._hold(view)
        return ready

    def finish(self) -> bytes:
        """Give the last segment; empty plaintext has one empty segment, no other artefact has one.

        :raises RuntimeError: when called twice.
        """
        self._refuse_after_finish()
        self._finished = True
        return self._seal(memoryview(self._held)[: self._held_bytes], last=True)

    def _hold(self, view: memoryview) -> int:
        taken = min(len(view), len(self._held) - self._held_bytes)
        self._held[self._held_bytes : self._held_bytes + taken] = view[:taken]
        self._held_bytes += taken
        return taken

    def _seal(self, plaintext: memoryview, *, last: bool) -> bytes:
        self._sealed += 1
        return self._segments.seal(self._sealed, plaintext, last=last)

    def _refuse_after_finish(self) -> None:
        if self._finished:
            raise RuntimeError("this artefact is finished; a new one needs a new DEK and IV (INV-47-02)")


def decrypt(read: Read, *, header: Header, dek: bytes | bytearray) -> Iterator[bytes]:
    """Decrypt an artefact, one authenticated segment at a time, in constant memory.

    The key is checked against the header tag at once, before anything is read. The DEK may be wiped only
    after the last segment.

    :param read: stands where :func:`read_header` left it; may return fewer bytes than asked for.
    :raises ArtefactDamaged: naming the segment, at the call or from the iterator. What came before it is
        authentic, but is not the whole artefact: only an iterator that ends has given all of it.
    """
    check_key(header, dek)
    return _open_segments(read, header, _Segments(header, dek))


def _open_segments(read: Read, header: Header, segments: _Segments) -> Iterator[bytes]:
    sealed_bytes = header.segment_bytes + TAG_BYTES
    # One byte more than a segment: whether another one follows is part of what its tag authenticates.
    buffer = memoryview(bytearray(sealed_bytes + 1))
    filled = 0
    number = 0
    last = False
    while not last:
        filled = _fill(read, buffer, filled)
        last = filled <= sealed_bytes
        number += 1
        sealed = buffer[: min(filled, sealed_bytes)]
        plaintext = _open(segments, number, sealed, last=last, header=header)
        if plaintext:
            yield plaintext
        elif number > 1:
            raise _damaged(header, number, "is empty, which only the single segment of an empty artefact may be")
        buffer[0] = buffer[sealed_bytes]
        filled = 1


def _fill(read: Read, buffer: memoryview, filled: int) -> int:
    while filled < len(buffer):
        piece = read(min(len(buffer) - filled, _READ_BYTES))
        if not piece:
            break
        buffer[filled : filled + len(piece)] = piece
        filled += len(piece)
    return filled


def _open(segments: _Segments, number: int, sealed: memoryview, *, last: bool, header: Header) -> bytes:
    if len(sealed) < TAG_BYTES:
        raise _damaged(header, number, f"is cut: {len(sealed)} bytes are left, its tag alone has {TAG_BYTES}")
    try:
        return segments.open(number, sealed, last=last)
    except InvalidTag:
        pass
    try:
        segments.open(number, sealed, last=not last)
    except InvalidTag:
        raise _damaged(
            header, number, "fails authentication: it was changed, cut, moved, or is another artefact's"
        ) from None
    if last:
        raise _damaged(header, number, "is not the last one: the artefact is cut at a segment boundary")
    raise _damaged(header, number, "is the last one, but bytes follow it: something was appended")


def _damaged(header: Header, number: int, what: str) -> ArtefactDamaged:
    return ArtefactDamaged(f"{header.context.object_key}: segment {number} {what}", remedy=FETCH_AGAIN)
