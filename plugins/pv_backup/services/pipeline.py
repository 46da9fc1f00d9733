"""Put the stages in a row: source → zstd → SHA3-256 → PVB1 → S3, one pass, constant memory.

Compression runs beside hashing and encryption, each in a thread of its own: all of them let go of the
interpreter while they work on a chunk, so two cores are used and no chunk is copied between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from pv_backup.services.ahead import Ahead
from pv_backup.services.compression import Compressor
from pv_backup.services.envelope import EnvelopeWriter
from pv_backup.services.errors import FailClosedError
from pv_backup.services.hashing import Sha3
from pv_backup.services.progress import Progress

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Sink(Protocol):
    """Where the artefact's bytes go."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        ...


@dataclass(frozen=True)
class Streamed:
    """What one pass produced.

    :ivar hash_sha3_256: over the compressed bytes before encryption (FORMAT: Hash).
    :ivar size_bytes: of the whole artefact, header and tags included.
    :ivar exported_bytes: as they came from the source, before compression.
    """

    hash_sha3_256: str
    size_bytes: int
    exported_bytes: int


def stream(
    chunks: Iterable[bytes],
    *,
    envelope: EnvelopeWriter,
    sink: Sink,
    progress: Progress,
    check: Callable[[], None],
) -> Streamed:
    """Run every chunk through all stages into the sink.

    The last segment is only written once the source has ended well: whatever `chunks` raises passes
    through, and what lies in the sink by then is no artefact.

    :param check: called with every chunk; it raises to stop the stream (lease lost, task killed).
    """
    hasher = Sha3()
    size = 0

    def emit(piece: bytes) -> None:
        nonlocal size
        size += len(piece)
        sink.write(piece)

    emit(envelope.header.raw)
    with Ahead(_compress(chunks, progress), name="compression") as compressed:
        for piece in compressed:
            check()
            hasher.update(piece)
            for segment in fail_closed(envelope.update, piece):
                emit(segment)
    emit(fail_closed(envelope.finish))
    return Streamed(hasher.hexdigest(), size, progress.read_bytes)


def fail_closed(encrypt: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Whatever goes wrong while encrypting is ERR-47-02; its own chain may hold key material and ends here."""
    try:
        return encrypt(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - no scheme to fall back to, whatever it was
        what = f"encryption failed: {type(error).__name__}: {error}"
    # Out here: inside a handler Python keeps the handled error as __context__.
    raise FailClosedError(what, remedy="nothing was stored; report it with the task's log")


def _compress(chunks: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    compressor = Compressor()
    for chunk in chunks:
        progress.read_bytes += len(chunk)
        if piece := compressor.update(chunk):
            yield piece
    yield compressor.finish()
