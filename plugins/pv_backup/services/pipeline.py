"""Put the stages in a row: source → zstd → SHA3-256 → PVB1 → S3, one pass, constant memory.

Compression runs beside hashing and encryption, each in a thread of its own: all of them let go of the
interpreter while they work on a chunk, so two cores are used and no chunk is copied between processes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from pv_backup.services.compression import Compressor
from pv_backup.services.envelope import EnvelopeWriter
from pv_backup.services.errors import FailClosedError
from pv_backup.services.hashing import Sha3
from pv_backup.services.progress import Progress

_QUEUED_CHUNKS = 4

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
    compressed = _Background(_compress(chunks, progress), name="compression")
    with compressed:
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


class _Background:
    """Run an iterator in a thread, a few items ahead; what it raises is raised to whoever consumes it."""

    def __init__(self, items: Iterator[bytes], *, name: str) -> None:
        self._items = items
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_QUEUED_CHUNKS)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - handed over, whatever it is
            end = error
        self._put(end)

    def _put(self, item: bytes | BaseException | None) -> bool:
        while not self._abandoned.is_set():
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[bytes]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._abandoned.set()
