"""What was restored in clear goes with its pod: Airflow's own executor and clean-up, with the chart's values."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import KubernetesExecutor

from tests.infrastructure.helm.pods_api import PodsApi, pods_api
from tests.infrastructure.helm.worker_pods import HELM, TASKS, pod_of

pytestmark = pytest.mark.case("TC-INF-04", "TC-INV-01")

VALUES: Final[dict[str, Any]] = yaml.safe_load((HELM / "values.yaml").read_text())
DRILL: Final = TASKS["pv_backup_restoration_drill.restore_the_cluster"]
SCHEDULER, ANOTHER = "1", "2"
PATIENCE_S: Final = 300
LIMIT: Final = timedelta(seconds=300)  # INV-47-01
A_START_OF_AIRFLOW: Final = timedelta(seconds=90)


def ended(reason: str, *, ago: timedelta = timedelta(hours=1)) -> dict[str, Any]:
    """The state of a pod whose container was killed."""
    at = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"terminated": {"reason": reason, "exitCode": 137, "finishedAt": at}}
    container = {"name": "base", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    return {"phase": "Failed", "reason": reason, "containerStatuses": [container]}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PodsApi]:
    """Airflow is told of it, and what the chart tells the executor."""
    with pods_api() as api:
        told = {
            f"AIRFLOW__KUBERNETES_EXECUTOR__{name.upper()}": str(value)
            for name, value in VALUES["config"]["kubernetes_executor"].items()
        }
        for name, value in (told | api.settings(tmp_path)).items():
            monkeypatch.setenv(name, value)
        # The client takes the proxy of HTTPS for plain addresses too.
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, urlsplit(api.address).hostname or "")
        yield api


@pytest.fixture
def executor(api: PodsApi) -> Iterator[KubernetesExecutor]:
    """The scheduler's, that SCHEDULER names."""
    executor = KubernetesExecutor()
    executor.job_id = SCHEDULER
    executor.start()
    yield executor
    executor.end()


def wait_until_gone(executor: KubernetesExecutor, api: PodsApi, name: str) -> None:
    """Do as the scheduler does, again and again."""
    deadline = time.monotonic() + PATIENCE_S
    while name in api.pods:
        assert time.monotonic() < deadline, f"{name} is still there, and its volume with it"
        executor.sync()
        time.sleep(0.1)


@pytest.mark.parametrize("reason", ["OOMKilled", "Evicted"])
def test_a_killed_pod_goes(reason: str, api: PodsApi, executor: KubernetesExecutor) -> None:
    name = api.add(pod_of(DRILL, scheduler=SCHEDULER), ended(reason))
    running = api.add(pod_of(DRILL, name="at-work", scheduler=SCHEDULER), {"phase": "Running"})

    wait_until_gone(executor, api, name)

    assert running in api.pods


def test_a_pod_that_was_killed_while_the_scheduler_was_away_goes_once_it_is_back(
    api: PodsApi, executor: KubernetesExecutor
) -> None:
    name = api.add(pod_of(DRILL, scheduler=ANOTHER), ended("OOMKilled"))
    task = SimpleNamespace(key=TaskInstanceKey(DRILL.dag_id, DRILL.task_id, "run", 1), queued_by_job_id=int(ANOTHER))

    assert executor.try_adopt_task_instances([task]) == []  # type: ignore[list-item]
    wait_until_gone(executor, api, name)


def clean_up() -> None:
    """The chart's job, as it runs each time."""
    command = [word.replace("{{ .Release.Namespace }}", "airflow") for word in VALUES["cleanup"]["args"]]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pod_that_no_scheduler_knows_any_more_goes(
    api: PodsApi, executor: KubernetesExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task was given up before a new scheduler could take it over."""
    name = api.add(pod_of(DRILL, name="left", scheduler=ANOTHER), ended("Evicted"))
    api.add(pod_of(DRILL, name="just-ended", scheduler=SCHEDULER), ended("OOMKilled", ago=timedelta(0)))
    running = api.add(pod_of(DRILL, name="at-work", scheduler=SCHEDULER), {"phase": "Running"})
    executor.try_adopt_task_instances([])
    wait_until_gone(executor, api, "just-ended")
    assert name in api.pods, "what the job is for"

    # Still fresh when Airflow has started, however long that takes.
    fresh = api.add(pod_of(DRILL, name="fresh", scheduler=ANOTHER), ended("Evicted", ago=timedelta(hours=-1)))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    clean_up()

    assert set(api.pods) == {running, fresh}, "a scheduler has a minute for itself"


def test_the_job_comes_often_enough() -> None:
    every, left = VALUES["cleanup"]["schedule"], VALUES["cleanup"]["args"][-1]
    minutes = int(re.fullmatch(r"\*/(\d+) \* \* \* \*", every)[1]) + int(re.fullmatch(r"--min-.*=(\d+)", left)[1])
    assert timedelta(minutes=minutes) + A_START_OF_AIRFLOW < LIMIT
