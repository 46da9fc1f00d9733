"""What the guard of a staging directory purges, and whom it ends: all that is inside, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pv_backup.services import staging_guard
from pv_backup.services.staging import StagingDirectory, purge_orphans
from tests.unit.services.test_staging import has_ended, left_in, wait_until

pytestmark = pytest.mark.case("TC-INV-01")


@pytest.fixture
def started() -> Iterator[list[int]]:
    """Sessions to end, whatever becomes of the test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def shell(script: str, started: list[int]) -> psutil.Process:
    child = subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True)
    started.append(child.pid)
    return psutil.Process(child.pid)


def tool_of(process: psutil.Process, ending: signal.Signals) -> staging_guard.Tool:
    return staging_guard.Tool(process.pid, os.pidfd_open(process.pid), ending)


def test_a_tree_is_emptied_and_removed(tmp_path: Path):
    staged = tmp_path / "staged"
    deep = staged / "data" / "base" / "5"
    deep.mkdir(parents=True)
    (deep / "16384").write_bytes(b"evidence")
    (staged / "data" / "closed").mkdir(mode=0o500)
    os.mkfifo(staged / "pipe")
    twice = staged / "one"
    twice.write_bytes(b"evidence")
    (staged / "two").hardlink_to(twice)
    with (deep / "16384").open("rb") as still_open, twice.open("rb") as also_open:
        staging_guard.purge(staged)
        assert [os.fstat(file.fileno()).st_size for file in (still_open, also_open)] == [0, 0]
    assert left_in(tmp_path) == []


def test_nothing_outside_is_touched(tmp_path: Path):
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    for kept in (outside / "kept", outside / "linked", outside / "folder" / "kept"):
        kept.write_bytes(b"not ours")
    staged = tmp_path / "staged"
    (staged / "pg_tblspc").mkdir(parents=True)
    (staged / "file").symlink_to(outside / "kept")
    (staged / "pg_tblspc" / "16389").symlink_to(outside / "folder")
    (staged / "hard").hardlink_to(outside / "linked")

    staging_guard.purge(staged)

    assert left_in(tmp_path) == ["outside"]
    assert {path.read_bytes() for path in outside.rglob("*") if path.is_file()} == {b"not ours"}
    assert len(list(outside.rglob("*"))) == 4


def test_a_directory_that_is_a_link_is_not_purged(tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_bytes(b"not ours")
    (tmp_path / "staged").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError):
        staging_guard.purge(tmp_path / "staged")
    assert (tmp_path / "outside" / "kept").read_bytes() == b"not ours"


def test_another_tool_stops_the_clock(tmp_path: Path, started: list[int]):
    ttl_s = 2
    with StagingDirectory(base=tmp_path, ttl_s=ttl_s) as staging:
        for _ in range(5):
            staging.watch(shell("sleep 0.2", started).pid)
            time.sleep(0.6)
            assert staging.path.exists()
        staging.watch(shell("exec sleep 60", started).pid)
        staging.watch(shell("true", started).pid)
        time.sleep(ttl_s + 0.6)
        assert staging.path.exists(), "one tool still works"
        psutil.Process(started[-2]).kill()
        assert wait_until(lambda: not staging.path.exists(), 20)


def test_all_that_a_tool_started_ends_with_it(started: list[int]):
    # The children have sessions of their own, as a server's have.
    parent = shell("for n in 1 2 3; do setsid sh -c 'sleep 60; :' & done; wait", started)
    assert wait_until(lambda: len(parent.children(recursive=True)) >= 6, 5)
    family = parent.children(recursive=True)

    staging_guard.end(tool_of(parent, signal.SIGKILL))

    assert wait_until(lambda: all(has_ended(process) for process in (parent, *family)), 1)


@pytest.mark.parametrize("trap", ["", "echo told > {told}; exit 0"], ids=["deaf", "obedient"])
def test_a_server_is_told_to_quit_before_it_is_killed(tmp_path: Path, started: list[int], monkeypatch, trap: str):
    monkeypatch.setattr(staging_guard, "_ORDER_PATIENCE_MS", 1000)
    told = tmp_path / "told"
    server = shell(
        f"trap '{trap.format(told=told)}' QUIT; touch {tmp_path}/ready; while :; do sleep 0.05; done", started
    )
    assert wait_until((tmp_path / "ready").exists, 2)

    staging_guard.end(tool_of(server, signal.SIGQUIT))

    assert wait_until(lambda: has_ended(server), 1)
    assert told.exists() == bool(trap)


def test_an_orphans_recorded_tools_are_ended_but_no_process_that_has_their_number_by_now(
    tmp_path: Path, started: list[int]
):
    tool, other = (shell("exec sleep 60", started) for _ in range(2))
    path = tmp_path / "pv-backup-staging-orphaned"
    path.mkdir()
    lines = [(tool.pid, staging_guard.started_at(tool.pid)), (other.pid, "12345")]
    (path / staging_guard.TOOLS_FILE).write_text("".join(f"{pid} {start} 9\n" for pid, start in lines))

    purge_orphans(tmp_path)

    assert wait_until(lambda: has_ended(tool), 1)
    assert not has_ended(other)
    assert left_in(tmp_path) == []
