"""PostgreSQL's backup_manifest, caught as the archive passes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv_backup.services.basebackup_manifest import ManifestCatcher
from pv_backup.services.errors import ExportFailed
from tests.unit.services.test_tar_stream import archive, cut

pytestmark = pytest.mark.case("TC-NOM-03")

MEBIBYTE = 1024 * 1024


def written(ranges: str = '{ "Timeline": 3, "Start-LSN": "1/FE000028", "End-LSN": "2/100" }', files: int = 5) -> bytes:
    """A manifest as PostgreSQL writes it, with a file whose name tries to pass for the ranges."""
    entries = [f'{{ "Path": "base/1/{number}", "Size": 8192 }},' for number in range(files)]
    entries.append(f'{{ "Path": {json.dumps(chr(34) + "WAL-Ranges" + chr(34) + ":")} }}')
    head, tail = ['{ "PostgreSQL-Backup-Manifest-Version": 1,', '"Files": ['], ['"Manifest-Checksum": "00"}', ""]
    return "\n".join([*head, *entries, "],", '"WAL-Ranges": [', ranges, "],", *tail]).encode()


def caught(manifest: bytes, sizes: list[int], **limits: int) -> ManifestCatcher:
    raw = archive({"base/1/1259": bytes(700), "pg_wal/1": bytes(512), "backup_manifest": manifest})
    catcher = ManifestCatcher(**limits)
    assert b"".join(catcher.watch(iter(cut(raw, sizes)))) == raw
    return catcher


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=5))
def test_the_text_and_the_positions_come_out_of_any_chunks(sizes: list[int]):
    manifest = caught(written(), sizes).manifest()

    assert f"{manifest.text}\n".encode() == written()
    assert (manifest.timeline, manifest.start_lsn, manifest.stop_lsn) == (3, "1/FE000028", "2/100")


@pytest.mark.parametrize(
    ("stop", "wal_files"),
    [
        ("1/FEFFFFFF", ["0000000300000001000000FE"]),
        ("1/FF000000", ["0000000300000001000000FE"]),
        ("2/100", ["0000000300000001000000FE", "0000000300000001000000FF", "000000030000000200000000"]),
    ],
)
def test_the_wal_files_are_those_from_start_to_stop(stop: str, wal_files: list[str]):
    ranges = f'{{ "Timeline": 3, "Start-LSN": "1/FE000028", "End-LSN": "{stop}" }}'

    facts = caught(written(ranges), [512]).manifest().facts(16 * MEBIBYTE)

    assert facts["wal_files"] == wal_files


def test_one_that_is_too_large_is_left_out_with_the_reason_but_read():
    large = written(files=4000)

    facts = caught(large, [1000], most_bytes=len(large) - 1).manifest().facts(MEBIBYTE)

    assert "backup_manifest" not in facts
    assert f"it has {len(large)} bytes" in facts["backup_manifest_absent"]
    assert (facts["timeline"], facts["start_lsn"], facts["stop_lsn"]) == (3, "1/FE000028", "2/100")


@pytest.mark.case("TC-ERR-01")
@pytest.mark.parametrize("ranges", ["", '{ "Timeline": 1 }, { "Timeline": 2 }'], ids=["none", "two timelines"])
def test_other_than_one_wal_range_is_refused(ranges: str):
    with pytest.raises(ExportFailed, match=r"names [02] WAL ranges instead of one"):
        caught(written(ranges), [512]).manifest()


@pytest.mark.case("TC-ERR-01")
def test_an_archive_without_a_manifest_is_no_backup():
    whole = archive({"base/1/1259": bytes(700)})
    cut_within = archive({"backup_manifest": written()})[:1000]

    for raw in (whole, cut_within):
        with pytest.raises(ExportFailed, match="without a whole backup_manifest"):
            list(ManifestCatcher().watch(iter([raw])))
