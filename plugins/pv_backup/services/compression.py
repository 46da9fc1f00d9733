"""zstd as a stream, at the level that costs this pipeline the least CPU.

Every stored byte costs about 20 ns of CPU at the S3 server and 4 ns of hashing, so a level is judged by
compression plus stored bytes. For each exported byte of a `pg_dump -Fc -Z0` (one third bytea and large
objects of incompressible documents, the rest log lines, jsonb, prose and numbers; 158 MB, on a busy core):

=====  ==========  ==========  ===============================  ====================
level  compresses  stored      CPU (compress + store + hash)    bytea as hex alone
=====  ==========  ==========  ===============================  ====================
1      167 MB/s    .440        16.5 ns                          312 MB/s, .507
2      132 MB/s    .428        17.9 ns                          162 MB/s, .508
3      39 MB/s     .430        36.1 ns                          31 MB/s, .526
5      26 MB/s     .415        48.9 ns (minMatch 6)             19 MB/s, .513
=====  ==========  ==========  ===============================  ====================

Level 3, the usual default, is slow where backups are large: its 5-byte matches find chance repetitions in
hex digits, which entropy coding would have shortened better. Level 1 also beat level 3 with minMatch 6 or 7
(28.3 and 23.6 ns) and levels 1 and 2 with other windows or long-distance matching.

zstd's own content checksum is off: SHA3-256 covers the same bytes on disk and GCM covers them in transit;
a third sum would cost CPU and detect nothing that these two let through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import zstandard

from pv_backup.services.errors import ArtefactDamaged

LEVEL: Final = 1
# zstd's own bound for levels up to 19 is 8 MiB; a frame that asks for more was not made by a backup.
MAX_WINDOW_BYTES: Final = 8 << 20
_BLOCK_BYTES: Final = 128 << 10
_BLOCKS_AT_ONCE: Final = 16
_BLOCK_HEADER_BYTES: Final = 3
_SMALLEST_HEADER: Final = 5
_REPEATED: Final = 1


class Compressor:
    """Compresses one artefact into one zstd frame, in constant memory, letting go of the interpreter."""

    def __init__(self) -> None:
        self._frame = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False).compressobj()

    def update(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take the next bytes; what comes back is often empty, for zstd gathers 128 KiB first."""
        return self._frame.compress(data)

    def finish(self) -> bytes:
        """End the frame; without this the artefact decompresses as cut."""
        return self._frame.flush()


def compress_whole(data: bytes) -> bytes:
    """Compress what is in memory anyway, such as a WAL segment: a stream takes a quarter more CPU, for it copies."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=False).compress(data)


def decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress one whole frame and refuse what is less or more, in bounded memory.

    zstd may expand 4 bytes to 128 KiB (a base backup is full of zeros), so a few blocks of the frame are fed at a time:
    a piece has at most 2 MiB, whatever the size of the chunks.
    Slices of 512 bytes were as safe, at 2.5 times the CPU.

    :param chunks: the authenticated plaintext of an artefact whose `compression` is `zstd`.
    :raises ArtefactDamaged: when the frame is cut, followed by more bytes, no zstd, or wants a window above
        8 MiB. Pieces given before that are not the whole export.
    """
    frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj(write_size=_BLOCK_BYTES)
    blocks = _Blocks()
    for chunk in chunks:
        view = memoryview(chunk)
        for piece_of_frame in blocks.runs(view):
            if frame.eof:
                raise _damaged("bytes follow the end of the zstd frame")
            try:
                piece = frame.decompress(piece_of_frame)
            except zstandard.ZstdError as error:
                raise _damaged(f"the decrypted bytes are no zstd frame of ours ({error})") from None
            if piece:
                yield piece
            if frame.unused_data:
                raise _damaged("bytes follow the end of the zstd frame")
    if not frame.eof:
        raise _damaged("the zstd frame is cut")


class _Blocks:
    """Where the blocks of a frame begin and end (RFC 8878, section 3.1.1.2), to feed a few at a time.

    A block has at most 128 KiB of content, in as little as 4 bytes.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._in_frame_header = True
        self._left = 0

    def runs(self, view: memoryview) -> Iterator[memoryview]:
        """Cut a chunk so that no part of it completes more than so many blocks."""
        begin = position = count = 0
        while position < len(view):
            if self._left:
                step = min(self._left, len(view) - position)
                self._left -= step
                position += step
                continue
            # One byte at a time: a header may lie in two chunks. There are three in 128 KiB.
            self._header.append(view[position])
            position += 1
            if self._in_frame_header:
                if len(self._header) >= _SMALLEST_HEADER and len(self._header) >= _frame_header_bytes(self._header):
                    self._in_frame_header = False
                    self._header.clear()
            elif len(self._header) == _BLOCK_HEADER_BYTES:
                header = int.from_bytes(self._header, "little")
                self._header.clear()
                # Of a block that repeats one byte, the size says how often.
                self._left = 1 if header >> 1 & 3 == _REPEATED else header >> 3
                count += 1
                if count == _BLOCKS_AT_ONCE:
                    yield view[begin:position]
                    begin, count = position, 0
        if begin < len(view):
            yield view[begin:]


def _frame_header_bytes(beginning: bytearray) -> int:
    """How long a frame's header is, by its fifth byte (RFC 8878, section 3.1.1.1.1)."""
    descriptor = beginning[4]
    single, dictionary, size = descriptor >> 5 & 1, descriptor & 3, descriptor >> 6
    return 5 + (1 - single) + (0, 1, 2, 4)[dictionary] + ((single, 2, 4, 8)[size])


def _damaged(what: str) -> ArtefactDamaged:
    return ArtefactDamaged(
        what, remedy="the bytes are as they were encrypted, so the export was stored wrong: restore another backup"
    )
