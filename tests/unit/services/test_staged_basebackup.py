"""Tars that grow in a staging directory become one archive, and never more of them lies there than is allowed."""

from __future__ import annotations

import io
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pv_backup.services.errors import ExportFailed
from pv_backup.services.postgres import ExportProcess
from pv_backup.services.staged_basebackup import StagedBasebackup
from pv_backup.services.staging import StagingDirectory

pytestmark = pytest.mark.case("TC-NOM-03")

MEBIBYTE = 1024 * 1024
# Writes files as pg_basebackup does, each from its beginning to its end in small bursts.
TOOL = """
import io, os, sys, tarfile, time
folder, pause, mebibytes = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
def archive(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for member, size in members.items():
            info = tarfile.TarInfo(member)
            info.size = size
            made.addfile(info, io.BytesIO(bytes([len(member)]) * size))
    return out.getvalue()
def write(name, raw):
    with open(f"{folder}/{name}", "ab", buffering=0) as file:
        for at in range(0, len(raw), 700_001):
            file.write(raw[at:at + 700_001])
            time.sleep(pause)
first = archive({"PG_15/5/16401": 100, "PG_15/5/16402": mebibytes << 20})
second = archive({"PG_15/5/16390": 3})
base = archive({"backup_label": 10, "base/1/1259": mebibytes << 20})
exec(sys.argv[4])
"""
TARS = "write('16400.tar', first); write('16389.tar', second); write('base.tar', base);"
MANIFEST = "write('backup_manifest', b'the manifest')"
NAMES = [
    *("pg_tblspc/16400", "pg_tblspc/16400/PG_15/5/16401", "pg_tblspc/16400/PG_15/5/16402"),
    *("pg_tblspc/16389", "pg_tblspc/16389/PG_15/5/16390", "backup_label", "base/1/1259", "backup_manifest"),
]


@contextmanager
def staged(
    base: Path,
    *,
    script: str = TARS + MANIFEST,
    pause: float = 0,
    mebibytes: int = 2,
    most_unread_bytes: int = 1 << 30,
) -> Iterator[tuple[StagedBasebackup, ExportProcess, StagingDirectory]]:
    with StagingDirectory(base=base) as staging:
        command = [sys.executable, "-c", TOOL, staging.tool_path, str(pause), str(mebibytes), script]
        with ExportProcess(command=command, environment={}, pass_fds=[staging.descriptor]) as tool:
            staging.watch(tool.pid)
            merged = StagedBasebackup(tool=tool, staging=staging, most_unread_bytes=most_unread_bytes)
            with merged.throttling():
                yield merged, tool, staging


def members_of(raw: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return tar.getnames()


def wait_until(what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not what() and time.monotonic() < deadline:
        time.sleep(0.01)
    return what()


@pytest.mark.parametrize("pause", [0, 0.05], ids=["the reader lags", "the tool lags"])
def test_the_tars_become_one_in_the_order_in_which_they_were_written(tmp_path, pause):
    with staged(tmp_path, pause=pause) as (merged, tool, staging):
        if not pause:
            assert tool.has_ended(within_s=60)
        raw = b"".join(merged.chunks())
        assert list(staging.path.iterdir()) == []
    assert members_of(raw) == NAMES
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        large = tar.extractfile("base/1/1259")
        assert large is not None
        assert large.read() == bytes([11]) * 2 * MEBIBYTE


@pytest.mark.case("TC-INV-01")
def test_a_tar_is_gone_as_soon_as_it_is_read(tmp_path):
    with staged(tmp_path) as (merged, tool, staging):
        assert tool.has_ended(within_s=60)
        left = []
        for _ in merged.chunks():
            names = sorted(path.name for path in staging.path.iterdir())
            if names not in left:
                left.append(names)
    everything = ["16389.tar", "16400.tar", "backup_manifest", "base.tar"]
    assert left[0] == everything
    assert [name for name in everything if name != "16400.tar"] in left
    assert ["backup_manifest", "base.tar"] in left
    assert left[-1] == []


@pytest.mark.case("TC-INV-01")
def test_a_tool_that_outruns_its_reader_is_paused_and_little_lies_on_the_disk(tmp_path):
    limit = 4 * MEBIBYTE
    with staged(tmp_path, pause=0.05, mebibytes=32, most_unread_bytes=limit) as (merged, tool, staging):
        process, chunks, most = psutil.Process(tool.pid), merged.chunks(), 0
        received = [next(chunks)]
        assert wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
        for chunk in chunks:
            received.append(chunk)
            most = max(most, sum(path.stat().st_blocks * 512 for path in staging.path.glob("*.tar")))
    assert members_of(b"".join(received)) == NAMES
    # Read bytes are given back every 16 MiB, and the tool may write for 0.1 s more before it is paused.
    assert most < 36 * MEBIBYTE


def test_a_reader_that_waits_for_a_paused_tool_gets_what_it_waits_for(tmp_path):
    """The tool is paused for what it wrote of one tar, and the reader began with another, which is not whole."""
    misdated = "write('16389.tar', second[:512]); os.utime(f'{folder}/16389.tar', (0, 0)); time.sleep(2);"
    script = f"write('16400.tar', first); {misdated} write('16389.tar', second[512:]); write('base.tar', base);"
    with staged(tmp_path, script=script + MANIFEST, most_unread_bytes=MEBIBYTE) as (merged, tool, _):
        process, received = psutil.Process(tool.pid), []
        assert wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
        reader = threading.Thread(target=lambda: received.extend(merged.chunks()), daemon=True)
        reader.start()
        reader.join(60)
        assert not reader.is_alive()
    assert sorted(members_of(b"".join(received))) == sorted(NAMES)


@pytest.mark.case("TC-ERR-01")
def test_a_paused_tool_can_be_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("pv_backup.services.postgres._TERMINATION_PATIENCE_S", 120)
    with staged(tmp_path, pause=0.01, mebibytes=20, most_unread_bytes=MEBIBYTE) as (merged, tool, _):
        process = psutil.Process(tool.pid)
        next(merged.chunks())
        assert wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
        began = time.monotonic()
    assert not process.is_running()
    assert time.monotonic() - began < 60


@pytest.mark.case("TC-ERR-01")
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (TARS + "sys.exit('no space left on device')", "ended with status 1: no space left on device"),
        (TARS + "os.kill(os.getpid(), 9)", "was ended by signal 9"),
        (TARS + "os.truncate(f'{folder}/base.tar', 1500); sys.exit()", r"its base\.tar was cut"),
        (TARS, "left no backup_manifest"),
        (MANIFEST, "left no tar"),
    ],
    ids=["an error", "a signal", "a cut tar", "no manifest", "no tar"],
)
def test_an_archive_that_is_not_whole_never_ends_well(tmp_path, script, said):
    with staged(tmp_path, script=script, mebibytes=1) as (merged, tool, _):
        assert tool.has_ended(within_s=60)
        with pytest.raises(ExportFailed, match=said):
            list(merged.chunks())
    assert list(tmp_path.iterdir()) == []
