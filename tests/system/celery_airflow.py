"""The whole Airflow with CeleryExecutor, for a test: its components here, each worker on a machine of its own."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev import guard
from dev.airflow_env import UI_USER
from dev.airflow_server import end
from dev.ports import free_ports
from dev.servers.redis import Redis
from tests.system.airflow_world import AirflowWorld
from tests.system.machine import Machine
from tests.system.turns import Turns
from tests.system.whole_airflow import TASKS_PATIENCE, WholeAirflow, until

AIRFLOW = str(Path(sys.executable).parent / "airflow")
# `airflow standalone` runs these too, but forces the local executor on them.
COMPONENTS = ("scheduler", "dag-processor", "api-server", "triggerer")
SHARED_QUEUE = "default"
# A worker that is not heard of for so long is dead. Theirs is to be heard of every second, but on a busy machine the
# API server hears nobody for half a minute.
SILENCE_S = 45
OVER = {"success", "failed"}


@dataclass(frozen=True)
class Ran:
    """One try of a task on a worker, and where that was."""

    began: str
    task_id: str
    try_number: int
    state: str
    machine: str

    def __str__(self) -> str:
        return f"{self.began} {self.task_id}, try {self.try_number}, on {self.machine}: {self.state}"


@dataclass(frozen=True)
class CeleryAirflow:
    """The person before the UI, who also sees which machine did what.

    :ivar turns: in which the machines take tasks.
    """

    client: WholeAirflow
    redis: Redis
    turns: Turns
    log: Path

    def run(self, dag_id: str, **conf: str) -> str:
        """Start a run by hand and wait for its end; its id."""
        run_id = self.trigger(dag_id, **conf)
        self.wait_for_the_end(dag_id, run_id)
        return run_id

    def trigger(self, dag_id: str, **conf: str) -> str:
        self.wait(lambda: self.client.knows(dag_id), f"{dag_id} is known")
        form = {"logical_date": None, "conf": conf}
        run_id: str = self.client.call("POST", f"dags/{dag_id}/dagRuns", json=form)["dag_run_id"]
        return run_id

    def wait_for_the_end(self, dag_id: str, run_id: str) -> None:
        self.wait(lambda: self.runs(dag_id).get(run_id) in OVER, f"{run_id} of {dag_id} is over")

    def wait_for_the_task(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self.wait(lambda: run_id in self.runs(dag_id), f"there is {run_id} of {dag_id}")
        self.wait(lambda: self.client.call("GET", path)["state"] == state, f"{task_id} of {run_id} is {state}")

    def runs(self, dag_id: str) -> dict[str, str]:
        """run_id → state."""
        listed = self.client.call("GET", f"dags/{dag_id}/dagRuns")["dag_runs"]
        return {run["dag_run_id"]: run["state"] for run in listed}

    def ran(self, dag_id: str, run_id: str) -> list[Ran]:
        """Every try that a worker took, oldest first."""
        run = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found = []
        for task in self.client.call("GET", run)["task_instances"]:
            mapped = "" if task["map_index"] < 0 else f"/{task['map_index']}"
            tries = self.client.call("GET", f"{run}/{task['task_id']}{mapped}/tries")["task_instances"]
            found += [
                Ran(one["start_date"], task["task_id"], one["try_number"], one["state"], one["hostname"])
                for one in tries
                if one["hostname"]
            ]
        return sorted(found, key=lambda one: one.began)

    def answer(self, dag_id: str, run_id: str, task_id: str, form: dict[str, str]) -> None:
        """Answer a question as the UI does, once the scheduler has noted that it is asked.

        Within that second the scheduler (3.3.2) would take the task for dead.
        """
        noted = f"TaskInstance Finished: dag_id={dag_id}, task_id={task_id}, run_id={run_id},"
        self.wait_for_the_task(dag_id, run_id, task_id, "awaiting_input")
        self.wait(lambda: noted in self.log.read_text(errors="replace"), f"it is noted that {run_id} asks")
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"
        options = self.client.call("GET", path)["options"]
        self.client.call("PATCH", path, json={"chosen_options": options, "params_input": form})

    def wait(self, holds: Callable[[], object], meaning: str) -> None:
        until(holds, meaning=meaning, log=self.log)


@contextmanager
def running_on(world: AirflowWorld, workers: Sequence[tuple[Machine, str]]) -> Iterator[CeleryAirflow]:
    """Start Redis, Airflow's components and a worker on each machine; end every process of them.

    :param workers: each machine, and the queues that its worker serves.
    """
    redis = Redis(home=world.folder / "redis", port=free_ports(["redis"])["redis"], password=secrets.token_urlsafe(24))
    env, log = world.env | _settings(redis), world.folder / "airflow.log"
    machines = [machine for machine, _ in workers]
    passwords = json.loads(Path(env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
    client = WholeAirflow(url=env["AIRFLOW__API__BASE_URL"], password=passwords[UI_USER])
    with ExitStack() as stack:
        stack.callback(redis.stop)
        redis.start()
        names = [machine.name for machine in machines]
        turns = stack.enter_context(Turns(redis.url, SHARED_QUEUE, names, metadata_dsn=world.metadata_dsn))
        components: list[subprocess.Popen[bytes]] = []
        stack.callback(_end_all, components, machines)
        for name in COMPONENTS:
            components.append(_component(name, env=env, folder=world.folder, log=log))
        for machine, queues in workers:
            _start_worker(machine, queues, env=turns.of_a_worker(env), log=log)
        until(client.is_healthy, meaning="Airflow is healthy", log=log)
        until(turns.all_answer, meaning="every worker answers", log=log)
        turns.begin()
        client.get_ready()
        yield CeleryAirflow(client, redis, turns, log)


def _settings(redis: Redis) -> dict[str, str]:
    return {
        **TASKS_PATIENCE,
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CELERY__BROKER_URL": redis.url,
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
        # Nothing runs but what the test starts.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(SILENCE_S),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        # Also how long a worker may stay with a task that is over.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # The DAG files do not change meanwhile; parsing all of them every 30 s takes a quarter of the machine.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    }


def _component(name: str, *, env: dict[str, str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            [AIRFLOW, name], env=env, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    guard.watch_process(process.pid)
    return process


def _start_worker(machine: Machine, queues: str, *, env: dict[str, str], log: Path) -> None:
    own = {"AIRFLOW_HOME": str(machine.home / "airflow"), "PV_BACKUP_STAGING_DIRECTORY": str(machine.staging)}
    # They share a network, in which both would serve their logs on the same port.
    command = [AIRFLOW, "celery", "worker", "--queues", queues, "--skip-serve-logs"]
    with log.open("ab") as output:
        machine.start([*command, "--without-gossip", "--without-mingle"], env=env | own, log=output)


def _end_all(components: list[subprocess.Popen[bytes]], machines: list[Machine]) -> None:
    """All at once, for each takes seconds to end in order."""
    with ThreadPoolExecutor() as pool:
        ending = [pool.submit(end, component) for component in components]
        ending += [pool.submit(machine.shut_down) for machine in machines]
    for ended in ending:
        ended.result()
