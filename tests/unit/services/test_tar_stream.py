"""Archives cut into pieces as they pass by, whatever the chunks."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv_backup.services.errors import ExportFailed
from pv_backup.services.tar_stream import END_OF_ARCHIVE, Member, TarSplitter, moved_below, new_header

pytestmark = pytest.mark.case("TC-NOM-03")

CONTENTS = {"backup_label": b"START WAL", "base/1/1259": bytes(8192), "base/1/PG_VERSION": b"15\n", "empty": b""}
LONGEST_NAME = "PG_15_202209061/" + "5" * 83


def archive(contents: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def cut(raw: bytes, sizes: list[int]) -> list[bytes]:
    """The bytes in chunks of these sizes, over and over."""
    chunks, at = [], 0
    while at < len(raw):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(raw[at : at + size])
        at += size
    return chunks


@given(
    st.dictionaries(st.from_regex(r"[a-z0-9_/]{1,90}[a-z]", fullmatch=True), st.binary(max_size=2000), max_size=5),
    st.lists(st.integers(1, 3000), min_size=1, max_size=5),
)
def test_any_archive_in_any_chunks_comes_out_whole(contents: dict[str, bytes], sizes: list[int]):
    raw, splitter = archive(contents), TarSplitter(name="a tar")
    found: dict[str, bytes] = {}
    passed = b""
    for chunk in cut(raw, sizes):
        for piece in splitter.feed(chunk):
            passed += piece.data
            before = found.setdefault(piece.member.name, b"")
            if not piece.is_header:
                found[piece.member.name] = before + piece.data
    assert splitter.ended
    assert {name: content[: len(contents[name])] for name, content in found.items()} == contents
    assert raw.startswith(passed + END_OF_ARCHIVE)


def test_an_archive_that_is_cut_has_not_ended():
    raw, splitter = archive(CONTENTS), TarSplitter(name="a tar")
    list(splitter.feed(raw[: raw.index(b"15\n")]))
    assert not splitter.ended


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 2**40])
def test_a_member_of_any_size_is_read_as_what_it_is(size: int):
    """PostgreSQL's are 1 GiB at most, unless it was built otherwise; ustar's octal digits end at 8 GiB."""
    member = tarfile.TarInfo("base/1/16384")
    member.size = size

    (piece,) = TarSplitter(name="a tar").feed(member.tobuf(tarfile.GNU_FORMAT))

    assert (piece.member.name, piece.member.size) == ("base/1/16384", size)


def test_what_is_no_tar_is_named():
    with pytest.raises(ExportFailed, match=r"16389\.tar is no tar archive"):
        list(TarSplitter(name="16389.tar").feed(b"no header" * 100))


def test_members_move_below_a_folder_whatever_the_length_of_their_names(tmp_path):
    contents = CONTENTS | {LONGEST_NAME: b"a table"}
    owner = tarfile.TarInfo()
    owner.uid, owner.mtime = 105, 1_700_000_000
    like = Member(name="", size=0, header=owner.tobuf(tarfile.USTAR_FORMAT))
    moved = [new_header("pg_tblspc/16389", like=like, mode=0o700, kind=tarfile.DIRTYPE)]
    for piece in TarSplitter(name="a tar").feed(archive(contents)):
        moved.append(moved_below("pg_tblspc/16389", bytes(piece.data)) if piece.is_header else bytes(piece.data))
    raw = b"".join([*moved, END_OF_ARCHIVE])

    subprocess.run(["tar", "--extract", "--directory", tmp_path], input=raw, check=True)

    folder = tmp_path / "pg_tblspc" / "16389"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    } == contents
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        assert tar.getnames() == ["pg_tblspc/16389", *(f"pg_tblspc/16389/{name}" for name in contents)]
        assert (tar.getmembers()[0].uid, tar.getmembers()[0].mtime) == (105, 1_700_000_000)
