"""The stages in a row: what comes out is the artefact of what went in, and nothing when anything fails."""

from __future__ import annotations

import io
import os
import threading

import pytest

from pv_backup.services.compression import decompress
from pv_backup.services.envelope import EnvelopeWriter, decrypt, read_header
from pv_backup.services.errors import ExportFailed, FailClosedError, LeaseLost, UploadFailed
from pv_backup.services.hashing import sha3_256_hex
from pv_backup.services.pipeline import stream
from pv_backup.services.progress import Progress
from tests.unit.services.artefact_samples import CONTEXT, DEK, IV

pytestmark = pytest.mark.case("TC-ERR-01", "TC-NR-01")

NOISE = os.urandom(3 << 20)


class Bucket:
    """Keeps what is written."""

    def __init__(self):
        self.body = bytearray()

    def write(self, data):
        self.body += data


def run(chunks, *, sink=None, check=lambda: None):
    sink = sink or Bucket()
    envelope = EnvelopeWriter(dek=DEK, iv=IV, context=CONTEXT)
    return stream(chunks, envelope=envelope, sink=sink, progress=Progress(label="test"), check=check), bytes(sink.body)


def opened(artefact):
    source = io.BytesIO(artefact)
    return b"".join(decrypt(source.read, header=read_header(source.read), dek=DEK))


def pieces(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1000, 1 << 16, 1 << 20, len(NOISE)])
def test_what_went_in_comes_out_whatever_the_chunks(size):
    streamed, artefact = run(pieces(NOISE, size))
    compressed = opened(artefact)
    assert b"".join(decompress([compressed])) == NOISE
    assert streamed.hash_sha3_256 == sha3_256_hex(compressed)
    assert streamed.size_bytes == len(artefact)
    assert streamed.exported_bytes == len(NOISE)


def test_an_empty_source_is_a_whole_artefact():
    streamed, artefact = run([])
    assert b"".join(decompress([opened(artefact)])) == b""
    assert streamed.exported_bytes == 0


def test_a_source_that_fails_passes_its_error_on_and_leaves_no_artefact():
    def failing():
        yield NOISE
        raise ExportFailed("pg_dump was ended by signal 9")

    sink = Bucket()
    with pytest.raises(ExportFailed, match="signal 9"):
        run(failing(), sink=sink)
    with pytest.raises(Exception, match="cut"):
        opened(bytes(sink.body))


def test_a_check_that_raises_stops_the_stream_in_its_middle():
    checked = []

    def lost_after_two():
        checked.append(True)
        if len(checked) > 2:
            raise LeaseLost("taken by another worker")

    taken = []

    def endless():
        while True:
            taken.append(True)
            yield os.urandom(1 << 18)

    with pytest.raises(LeaseLost):
        run(endless(), check=lost_after_two)
    assert len(taken) < 100


def test_a_sink_that_fails_ends_the_thread_beside_it():
    class Full:
        body = b""

        def write(self, data):
            raise UploadFailed("nothing completed")

    def endless():
        while True:
            yield NOISE

    with pytest.raises(UploadFailed):
        run(endless(), sink=Full())
    for thread in threading.enumerate():
        if thread.name == "compression":
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.case("TC-ERR-02", "TC-INV-03")
def test_an_envelope_that_cannot_encrypt_fails_closed():
    envelope = EnvelopeWriter(dek=DEK, iv=IV, context=CONTEXT)
    envelope.finish()
    with pytest.raises(FailClosedError, match="encryption failed: RuntimeError") as caught:
        stream([NOISE], envelope=envelope, sink=Bucket(), progress=Progress(label="test"), check=lambda: None)
    assert caught.value.code == "ERR-47-02"
    assert caught.value.__context__ is None


def test_the_source_is_read_only_a_few_chunks_ahead_of_a_slow_sink():
    taken = []
    ahead = []

    def source():
        for _ in range(30):
            taken.append(True)
            yield os.urandom(1 << 20)

    class Slow(Bucket):
        def write(self, data):
            if self.body:
                threading.Event().wait(0.02)
            super().write(data)
            ahead.append(len(taken) - len(self.body) / (1 << 20))

    run(source(), sink=Slow())
    assert max(ahead) < 10
