"""The whole Airflow with CeleryExecutor, for a test: its four components here, each worker on a machine of its own."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev import guard
from dev.airflow_env import UI_USER
from dev.airflow_server import end
from dev.ports import free_ports
from dev.servers.redis import Redis
from tests.system.airflow_world import AirflowWorld
from tests.system.machine import Machine
from tests.system.turns import Turns
from tests.system.whole_airflow import START_PATIENCE_S, WholeAirflow, until

AIRFLOW = str(Path(sys.executable).parent / "airflow")
# `airflow standalone` runs these too, but takes no other executor than the local one.
PARTS = ("scheduler", "dag-processor", "api-server", "triggerer")
OVER = {"success", "failed"}
SHARED_QUEUE = "default"
# How long a worker is not heard of before its task is taken for dead.
SILENCE_S = 20


@dataclass(frozen=True)
class Ran:
    """One try of a task, and where it was."""

    task_id: str
    try_number: int
    state: str
    machine: str
    began: str
    ended: str


class CeleryAirflow:
    """What a person before the UI does with it, and who ran what.

    :ivar log: of all components and workers.
    """

    def __init__(self, client: WholeAirflow, *, log: Path, turns: Turns, redis: Redis) -> None:
        self.client = client
        self.log = log
        self.turns = turns
        self.redis = redis

    def trigger(self, dag_id: str, **conf: str) -> str:
        """Start a run by hand; its id."""
        self.wait(lambda: self.client.knows(dag_id), f"{dag_id} is known")
        form = {"logical_date": None, "conf": conf}
        run_id: str = self.client.call("POST", f"dags/{dag_id}/dagRuns", json=form)["dag_run_id"]
        return run_id

    def state(self, dag_id: str, run_id: str) -> str:
        return str(self.client.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def wait_for_the_end(self, dag_id: str, run_id: str) -> None:
        self.wait(lambda: self.state(dag_id, run_id) in OVER, f"{dag_id} is over")

    def run(self, dag_id: str, **conf: str) -> str:
        """Start a run and wait for its end."""
        run_id = self.trigger(dag_id, **conf)
        self.wait_for_the_end(dag_id, run_id)
        return run_id

    def task_state(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        found: str | None = self.client.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")["state"]
        return found

    def ran(self, dag_id: str, run_id: str) -> list[Ran]:
        """Every try that a worker took, in the order of their beginnings."""
        run = f"dags/{dag_id}/dagRuns/{run_id}"
        found = []
        for task in self.client.call("GET", f"{run}/taskInstances")["task_instances"]:
            mapped = "" if task["map_index"] < 0 else f"/{task['map_index']}"
            tries = self.client.call("GET", f"{run}/taskInstances/{task['task_id']}{mapped}/tries")["task_instances"]
            found += [_ran(one) for one in tries if one["hostname"]]
        return sorted(found, key=lambda one: one.began)

    def wait(self, holds: Any, meaning: str, patience_s: float = 240) -> None:
        until(holds, patience_s=patience_s, meaning=meaning, log=self.log)


def _ran(one: dict[str, Any]) -> Ran:
    return Ran(one["task_id"], one["try_number"], one["state"], one["hostname"], one["start_date"], one["end_date"])


@contextmanager
def running_on(world: AirflowWorld, workers: Sequence[tuple[Machine, str]]) -> Iterator[CeleryAirflow]:
    """Start Redis, Airflow's components and a worker on each machine; end every process of them.

    :param workers: each machine, and the queues that it serves beside the shared one, comma-separated.
    """
    redis = Redis(
        home=world.folder / "redis", port=free_ports(["redis"])["redis"], password=secrets.token_urlsafe(24)
    )
    env = world.env | _settings(redis)
    log = world.folder / "airflow.log"
    client = _client(env)
    with ExitStack() as stack:
        redis.start()
        stack.callback(redis.stop)
        started = [_start(part, env=env, folder=world.folder, log=log) for part in PARTS]
        stack.callback(_end_all, started, [machine for machine, _ in workers])
        for machine, queues in workers:
            _start_worker(machine, ",".join(filter(None, (SHARED_QUEUE, queues))), env=env, log=log)
        names = [machine.name for machine, _ in workers]
        turns = stack.enter_context(Turns(redis.url, SHARED_QUEUE, names, metadata_dsn=world.metadata_dsn))
        until(client.is_healthy, patience_s=START_PATIENCE_S, meaning="Airflow is healthy", log=log)
        until(turns.all_answer, patience_s=START_PATIENCE_S, meaning="every worker answers", log=log)
        client.log_in()
        yield CeleryAirflow(client, log=log, turns=turns, redis=redis)


def _settings(redis: Redis) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CELERY__BROKER_URL": redis.url,
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
        "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"worker_send_task_events": True}),
        # Nothing runs but what a test starts.
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(SILENCE_S),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        # A worker stays with a task that is over until it would have sent its next heartbeat.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # The DAG files do not change meanwhile; parsing all of them every 30 s takes a quarter of the machine.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    }


def _client(env: dict[str, str]) -> WholeAirflow:
    passwords = json.loads(Path(env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
    return WholeAirflow(url=env["AIRFLOW__API__BASE_URL"], password=passwords[UI_USER])


def _start(part: str, *, env: dict[str, str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            [AIRFLOW, part], env=env, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    guard.watch_process(process.pid)
    return process


def _start_worker(machine: Machine, queues: str, *, env: dict[str, str], log: Path) -> None:
    own = {"AIRFLOW_HOME": str(machine.home / "airflow"), "PV_BACKUP_STAGING_DIRECTORY": str(machine.staging)}
    # All workers would serve their logs on one port of the one network.
    command = [AIRFLOW, "celery", "worker", "--queues", queues, "--skip-serve-logs", "--without-gossip"]
    with log.open("ab") as output:
        machine.start([*command, "--without-mingle"], env=env | own, log=output)


def _end_all(components: list[subprocess.Popen[bytes]], machines: list[Machine]) -> None:
    """At the same time, for each takes seconds to end in order."""
    with ThreadPoolExecutor() as pool:
        ending = [pool.submit(end, component) for component in components]
        ending += [pool.submit(machine.shut_down) for machine in machines]
    for ended in ending:
        ended.result()
