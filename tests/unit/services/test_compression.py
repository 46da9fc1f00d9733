"""zstd frames: whole ones come back in bounded memory, all others are refused."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pv_backup.services.compression import MAX_WINDOW_BYTES, Compressor, decompress
from pv_backup.services.errors import ArtefactDamaged

SAMPLE = b"COPY legal.document (id, title) FROM stdin;\n" * 2000 + os.urandom(5000)


def compress(pieces: Iterable[bytes]) -> bytes:
    compressor = Compressor()
    return b"".join([*(compressor.update(piece) for piece in pieces), compressor.finish()])


def sliced(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.case("TC-NR-01")
@given(
    data=st.one_of(st.binary(max_size=3000), st.integers(0, len(SAMPLE)).map(lambda n: SAMPLE[:n])),
    cut=st.integers(1, 9000),
)
@example(data=b"", cut=1)
@settings(deadline=None, max_examples=60)
def test_what_was_compressed_comes_back(data: bytes, cut: int) -> None:
    frame = compress(sliced(data, cut))
    assert b"".join(decompress(sliced(frame, cut))) == data


@pytest.mark.case("TC-NR-05")
def test_any_zstd_tool_reads_the_frame() -> None:
    assert zstandard.ZstdDecompressor().decompressobj().decompress(compress([SAMPLE])) == SAMPLE


@pytest.mark.case("TC-NEG-02")
@given(kept=st.integers(min_value=0))
@example(kept=0)
@settings(deadline=None, max_examples=60)
def test_a_cut_frame_is_refused(kept: int) -> None:
    frame = compress([SAMPLE])
    with pytest.raises(ArtefactDamaged, match="cut"):
        list(decompress([frame[: kept % len(frame)]]))


@pytest.mark.case("TC-NEG-02")
def test_no_input_is_a_cut_frame() -> None:
    with pytest.raises(ArtefactDamaged, match="cut"):
        list(decompress([]))


@pytest.mark.case("TC-NEG-01")
@pytest.mark.parametrize("pieces", [[b"x"], [b"", b"x"], [compress([b"second"])]], ids=["same", "next", "frame"])
def test_bytes_after_the_frame_are_refused(pieces: list[bytes]) -> None:
    frame = compress([SAMPLE])
    for chunks in ([frame, *pieces], [frame + b"".join(pieces)]):
        with pytest.raises(ArtefactDamaged, match="follow the end"):
            list(decompress(chunks))


@pytest.mark.case("TC-NEG-01")
@pytest.mark.parametrize("garbage", [b"PGDMP" * 50, os.urandom(600)], ids=["dump in clear", "noise"])
def test_what_is_no_frame_is_refused(garbage: bytes) -> None:
    with pytest.raises(ArtefactDamaged, match="no zstd frame"):
        list(decompress([b"\0" + garbage]))


@pytest.mark.case("TC-NEG-01")
def test_a_frame_that_wants_too_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=25)
    greedy = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = greedy.compress(SAMPLE) + greedy.flush()
    assert zstandard.get_frame_parameters(frame).window_size > MAX_WINDOW_BYTES
    with pytest.raises(ArtefactDamaged, match="no zstd frame of ours"):
        list(decompress([frame]))


@pytest.mark.case("TC-NOM-03")
def test_zeros_expand_piece_by_piece() -> None:
    """A base backup is full of zeros; one segment of them must not become gigabytes in memory at once."""
    zeros = bytes(1 << 20)
    frame = compress(zeros for _ in range(256))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sizes = [len(piece) for piece in decompress([frame])]
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert sum(sizes) == 256 << 20
    assert max(sizes) <= 2 << 20
    assert grown_mib < 64
