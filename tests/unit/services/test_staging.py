"""Nothing staged in clear outlives its export by more than the time it has, whoever is killed, stopped or hung."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pv_backup.services.errors import ConfigurationError, ExportFailed
from pv_backup.services.staging import StagingDirectory
from tests.support.processes import children_running

pytestmark = pytest.mark.case("TC-INV-01")

ROOT = Path(__file__).resolve().parents[3]
# A worker with a tool that stages a file and then works for a while, and with a sibling that keeps all its pipes open.
WORKER = """
import os, subprocess, sys, time
from pathlib import Path
from pv_backup.services.staging import StagingDirectory
ttl_s, limit_s = map(float, sys.argv[2:])
with StagingDirectory(base=Path(sys.argv[1]), ttl_s=ttl_s, limit_s=limit_s) as staging:
    command = ["/bin/sh", "-c", f"echo evidence > {staging.tool_path}/base.tar; exec sleep 600"]
    tool = subprocess.Popen(command, pass_fds=[staging.descriptor], start_new_session=True)
    staging.watch(tool.pid)
    while not (staging.path / "base.tar").exists():
        time.sleep(0.01)
    sibling = os.fork() or time.sleep(600)
    print(staging.path, tool.pid, sibling, flush=True)
    time.sleep(600)
"""


@dataclass(frozen=True)
class Worker:
    process: psutil.Process
    path: Path
    guard: psutil.Process
    tool: psutil.Process


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    started: list[int] = []

    def start(*, ttl_s: float = 300, limit_s: float = math.inf) -> Worker:
        child = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(ttl_s), str(limit_s)],
            env={"PYTHONPATH": str(ROOT / "plugins")},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        path, *pids = child.stdout.readline().split()
        tool, sibling = map(int, pids)
        process = psutil.Process(child.pid)
        guard = guard_of(process)
        started.extend([guard.pid, tool, sibling, child.pid])
        return Worker(process, Path(path), guard, psutil.Process(tool))

    yield start
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(what: Callable[[], bool], within_s: float = 60) -> bool:
    deadline = time.monotonic() + within_s
    while not what() and time.monotonic() < deadline:
        time.sleep(0.01)
    return what()


def has_ended(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def guard_of(process: psutil.Process) -> psutil.Process:
    (guard,) = children_running("staging_guard", of=process)
    return guard


def left_in(base: Path) -> list[str]:
    return [path.name for path in base.iterdir()]


def test_a_worker_that_is_killed_leaves_nothing_neither_files_nor_the_tool(worker, tmp_path):
    killed = worker()
    with (killed.path / "base.tar").open("rb") as still_open:
        killed.process.kill()
        assert wait_until(lambda: left_in(tmp_path) == [])
        assert wait_until(lambda: has_ended(killed.tool) and has_ended(killed.guard))
        assert os.fstat(still_open.fileno()).st_size == 0


def test_a_paused_tool_goes_with_its_worker_too(worker, tmp_path):
    killed = worker()
    killed.tool.suspend()
    killed.process.kill()
    assert wait_until(lambda: left_in(tmp_path) == [] and has_ended(killed.tool))


def test_a_worker_that_is_stopped_cannot_prolong_the_time_after_the_export(worker, tmp_path):
    ttl_s = 1.5
    stopped = worker(ttl_s=ttl_s)
    stopped.process.suspend()
    ends = time.monotonic()
    stopped.tool.terminate()
    assert wait_until(lambda: left_in(tmp_path) == [])
    assert time.monotonic() - ends >= ttl_s


def test_a_worker_that_is_stopped_cannot_prolong_the_limit_by_a_tool_that_works_on(worker, tmp_path):
    limit_s = 4
    begins = time.monotonic()
    stopped = worker(limit_s=limit_s)
    stopped.process.suspend()
    assert wait_until(lambda: left_in(tmp_path) == [] and has_ended(stopped.tool))
    assert time.monotonic() - begins >= limit_s


def test_no_time_runs_while_the_tool_works(worker):
    working = worker(ttl_s=0.1)
    time.sleep(0.5)
    assert (working.path / "base.tar").read_bytes() == b"evidence\n"


def test_signals_to_the_workers_group_and_service_spare_the_guard(worker, tmp_path):
    started = worker()
    assert os.getsid(started.guard.pid) == started.guard.pid
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        started.guard.send_signal(each)
    started.process.terminate()
    assert wait_until(lambda: left_in(tmp_path) == [])


def test_the_guard_keeps_neither_output_of_the_worker_open_nor_its_environment(worker):
    started = worker()
    outputs, kept = (
        {str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir() if path.name in names}
        for process, names in ((started.process, {"1", "2"}), (started.guard, {str(n) for n in range(256)}))
    )
    assert outputs.isdisjoint(kept)
    assert "PYTHONPATH" not in started.guard.environ()


def test_a_good_end_purges_at_once_and_ends_the_guard(tmp_path):
    with StagingDirectory(base=tmp_path) as staging:
        guard = guard_of(psutil.Process())
        assert staging.path.stat().st_mode & 0o777 == 0o700
        (staging.path / "16389.tar").write_bytes(b"evidence")
        staging.check()
    assert left_in(tmp_path) == []
    assert not guard.is_running()


def test_an_error_purges_at_once_too(tmp_path):
    def fail():
        with StagingDirectory(base=tmp_path) as staging:
            (staging.path / "16389.tar").write_bytes(b"evidence")
            raise ExportFailed("the export failed")

    with pytest.raises(ExportFailed, match="the export failed"):
        fail()
    assert left_in(tmp_path) == []


def test_a_reader_learns_that_its_staging_was_purged(tmp_path):
    with StagingDirectory(base=tmp_path, ttl_s=0.1) as staging:
        tool = subprocess.Popen(["/bin/true"])
        staging.watch(tool.pid)
        tool.wait()
        assert wait_until(lambda: not staging.path.exists())
        with pytest.raises(ExportFailed, match=r"was purged 0\.1 s after the export's end \(INV-47-01\)") as caught:
            staging.check()
    assert "how fast S3 takes parts" in caught.value.remedy


def test_without_its_guard_nothing_goes_on_in_clear(tmp_path):
    with StagingDirectory(base=tmp_path) as staging:
        (staging.path / "16389.tar").write_bytes(b"evidence")
        guard = guard_of(psutil.Process())
        guard.kill()
        assert wait_until(lambda: has_ended(guard))
        with pytest.raises(ExportFailed, match="guard of the staging directory"):
            staging.check()
        with pytest.raises(ExportFailed, match="guard of the staging directory"):
            staging.watch(os.getpid())
    assert left_in(tmp_path) == []


def test_a_hung_guard_holds_up_nobody(tmp_path, monkeypatch):
    with StagingDirectory(base=tmp_path) as staging:
        monkeypatch.setattr("pv_backup.services.staging._GUARD_PATIENCE_S", 0.2)
        (staging.path / "16389.tar").write_bytes(b"evidence")
        guard_of(psutil.Process()).suspend()
    assert left_in(tmp_path) == []


def test_what_a_killed_guard_left_is_purged_by_the_next_export_but_no_living_one(worker, tmp_path, caplog):
    alive, killed = worker(), worker()
    for process in (killed.guard, killed.process, killed.tool):
        process.kill()
    assert wait_until(lambda: has_ended(killed.guard))
    with (killed.path / "base.tar").open("rb") as still_open, StagingDirectory(base=tmp_path) as staging:
        assert sorted(left_in(tmp_path)) == sorted([alive.path.name, staging.path.name])
        assert os.fstat(still_open.fileno()).st_size == 0
    assert f"purging {killed.path}, which a worker and its guard left behind" in caplog.text
    assert (alive.path / "base.tar").exists()


def test_a_base_that_is_not_there_is_named_with_its_setting(tmp_path):
    with (
        pytest.raises(ConfigurationError, match=f"in {tmp_path}/nowhere: No such file") as caught,
        StagingDirectory(base=tmp_path / "nowhere"),
    ):
        pass
    assert "PV_BACKUP_STAGING_DIRECTORY" in caught.value.remedy
