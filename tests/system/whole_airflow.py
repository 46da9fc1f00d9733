"""The whole Airflow, as `make airflow` runs it, for a test: API server, scheduler, dag processor, triggerer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests

from dev import guard
from dev.airflow_env import UI_USER
from dev.airflow_server import end
from tests.system.airflow_world import AirflowWorld

PATIENCE_S = 420  # of a busy machine; what takes longest takes a free one a minute
# Of its own accord a task gives up when the server has not answered five times, each within 5 s.
TASKS_PATIENCE = {"AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": str(PATIENCE_S)}
COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")


class WholeAirflow:
    """A client of the REST API, with the rights of the person who sits before the web UI.

    Each request waits as long as a test waits for anything: on a busy machine the server answers nobody for half a
    minute while it builds what workers talk to, and what changes something must not be asked twice.

    :param url: of the API server.
    :param password: of the user `admin`.
    """

    def __init__(self, *, url: str, password: str) -> None:
        self._url = url
        self._password = password
        self._session = requests.Session()

    def is_healthy(self) -> bool:
        """Whether every component answers and may be talked to."""
        try:
            health = requests.get(f"{self._url}/api/v2/monitor/health", timeout=5).json()
        except requests.RequestException:
            return False
        return all(health[component]["status"] == "healthy" for component in COMPONENTS)

    def get_ready(self) -> None:
        """Log in, and have the server build what tasks talk to.

        On a busy machine it takes longer over that than the first task would wait before it gives up.
        """
        requests.get(f"{self._url}/execution/health", timeout=PATIENCE_S).raise_for_status()
        answer = requests.post(
            f"{self._url}/auth/token", json={"username": UI_USER, "password": self._password}, timeout=PATIENCE_S
        )
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """Ask the API.

        :raises requests.HTTPError: with the answer's text.
        """
        answer = self._session.request(method, f"{self._url}/api/v2/{path}", timeout=PATIENCE_S, **kwargs)
        if not answer.ok:
            raise requests.HTTPError(f"{answer.status_code} {answer.text}", response=answer)
        return answer.json()

    def knows(self, dag_id: str) -> bool:
        """Whether the dag processor has brought the DAG in."""
        return dag_id in [dag["dag_id"] for dag in self.call("GET", "dags")["dags"]]

    def log_of(self, dag_id: str, run_id: str, task_id: str) -> str:
        """The log of a task's first try, as the UI shows it."""
        answer = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/1")
        return json.dumps(answer["content"])


@contextmanager
def running(world: AirflowWorld) -> Iterator[WholeAirflow]:
    """Start it, wait until all of it is healthy, and end every process of it."""
    env = {
        **world.env,
        **TASKS_PATIENCE,
        "PATH": f"{Path(sys.executable).parent}:{world.env['PATH']}",
        # The DAG files do not change meanwhile; parsing all of them every 30 s takes a quarter of the machine.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    }
    log = world.folder / "standalone.log"
    with log.open("wb") as output:
        airflow = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=env,
            cwd=world.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    guard.watch_process(airflow.pid)
    passwords = json.loads(Path(env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
    client = WholeAirflow(url=env["AIRFLOW__API__BASE_URL"], password=passwords[UI_USER])
    try:
        until(client.is_healthy, meaning="Airflow is healthy", log=log)
        client.get_ready()
        yield client
    finally:
        end(airflow)


def processes_of(world: AirflowWorld) -> list[psutil.Process]:
    """Every process that lives in the world's Airflow, wherever it has gone."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME") == world.env["AIRFLOW_HOME"]:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def until(holds: Callable[[], object], *, meaning: str, log: Path) -> None:
    """Wait for it, or fail with the end of Airflow's log."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        tail = log.read_text(errors="replace")[-6000:]
        assert time.monotonic() < deadline, f"in {PATIENCE_S} s not true: {meaning}\n{tail}"
        time.sleep(0.5)
