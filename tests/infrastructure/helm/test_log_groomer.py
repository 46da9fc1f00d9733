"""deploy/helm/values.yaml: what removes the logs of the volume that all pods share, run as it stands there."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.infrastructure.helm.worker_pods import HELM

pytestmark = pytest.mark.case("TC-INF-04")

GROOMER: Final[dict[str, Any]] = yaml.safe_load((HELM / "values.yaml").read_text())["scheduler"]["logGroomerSidecar"]
LOGS: Final = "/opt/airflow/logs"
PATIENCE_S: Final = 300


def aged(path: Path, *, days: float) -> None:
    at = time.time() - days * 86400
    os.utime(path, (at, at))


def log_of(logs: Path, run: str, *, days: float) -> Path:
    """As a task leaves it, so many days ago."""
    log = logs / "dag_id=x" / f"run_id={run}" / "task_id=y" / "attempt=1.log"
    log.parent.mkdir(parents=True)
    log.touch()
    for path in (log, log.parent, log.parent.parent):
        aged(path, days=days)
    return log


def groom(logs: Path, programs: Path) -> None:
    """One round of it."""
    sleep = programs / "sleep"
    sleep.write_text("#!/bin/sh\nkill $PPID\n")
    sleep.chmod(0o755)
    command = [word.replace(LOGS, str(logs)) for word in GROOMER["args"]]
    done = subprocess.run(
        command,
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout + done.stderr == ""


def test_logs_go_after_30_days_and_their_directories_after_them(tmp_path: Path) -> None:
    logs, programs = tmp_path / "logs", tmp_path / "bin"
    programs.mkdir()
    old, young = log_of(logs, "old", days=32), log_of(logs, "young", days=29)
    aged(logs, days=400)

    groom(logs, programs)
    assert not old.exists()
    assert young.exists()
    assert old.parent.exists(), "it was changed just now"

    aged(old.parent, days=3)
    groom(logs, programs)
    assert not old.parent.parent.exists()
    assert young.exists()


def test_a_directory_into_which_a_task_is_about_to_write_stays(tmp_path: Path) -> None:
    logs, programs = tmp_path / "logs", tmp_path / "bin"
    programs.mkdir()
    fresh = logs / "dag_id=x" / "run_id=new" / "task_id=y"
    fresh.mkdir(parents=True)

    groom(logs, programs)
    assert fresh.exists()


def test_the_volume_itself_stays(tmp_path: Path) -> None:
    logs, programs = tmp_path / "logs", tmp_path / "bin"
    for directory in (logs, programs):
        directory.mkdir()
    aged(logs, days=400)

    groom(logs, programs)
    assert logs.exists()
