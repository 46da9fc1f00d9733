"""SHA3-256 against NIST's published digests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv_backup.services.hashing import Sha3, sha3_256_hex

# NIST CSRC, "Examples with Intermediate Values", SHA3-256; the last one is SHA-3's 1600-bit message.
PUBLISHED = {
    b"": "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a",
    b"abc": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
    b"\xa3" * 200: "79f38adec5c20307a98ef76e8324afbfd46cfd81b22e3973c65fa1bd9de31787",
}


@pytest.mark.case("TC-NR-04")
@pytest.mark.parametrize(("message", "digest"), PUBLISHED.items(), ids=["empty", "abc", "1600 bits"])
def test_published_digests(message: bytes, digest: str) -> None:
    assert sha3_256_hex(message) == digest


@pytest.mark.case("TC-NR-04")
@given(pieces=st.lists(st.binary(max_size=300), max_size=8))
def test_pieces_hash_as_their_whole(pieces: list[bytes]) -> None:
    running = Sha3()
    for piece in pieces:
        running.update(memoryview(piece))
    assert running.hexdigest() == sha3_256_hex(b"".join(pieces))
