"""A test run that is killed leaves no server and no directory behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

_VICTIM = """
import os, signal, subprocess, sys
from pathlib import Path
from dev import guard
guard.start()
guard.watch_path(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
guard.watch_process(child.pid)
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.case("TC-ERR-08")
def test_a_killed_run_is_cleaned_up_behind(tmp_path: Path) -> None:
    left = tmp_path / "stack"
    (left / "data").mkdir(parents=True)

    killed = subprocess.run(
        [sys.executable, "-c", _VICTIM, str(left)], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )

    server = int(killed.stdout)
    deadline = time.monotonic() + 60
    while (left.exists() or psutil.pid_exists(server)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(server)
    assert not left.exists()
