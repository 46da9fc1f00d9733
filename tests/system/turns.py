"""Makes Celery workers take turns, so that no task finds what the task before it left on its own machine."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import psycopg
from celery import Celery
from celery.signals import task_received

from dev.airflow_env import ROOT

ANSWER_S = 5
PATIENCE_S = 240
_QUEUE_VARIABLE = "PV_BACKUP_TEST_QUEUE_OF_TURNS"
# Of the tasks that were under way when this one was queued, and of this one: on which most depends.
_WHAT_MATTERS = """
SELECT external_executor_id FROM task_instance
WHERE external_executor_id = ANY(%(begun)s) AND (
    external_executor_id = %(this)s
    OR state IN ('queued', 'running')
    OR end_date > (SELECT queued_dttm FROM task_instance WHERE external_executor_id = %(this)s)
)
ORDER BY priority_weight DESC, external_executor_id = %(this)s
LIMIT 1
"""


class Turns:
    """Lets one worker at a time serve the shared queue: who is given a task from it leaves it to the other.

    The worker leaves by itself, before it begins the task (:func:`leave_the_queue`); so whoever hears of it late, on a
    busy machine, makes the next task wait, and never lets two follow each other on one machine. Of tasks that run side
    by side the one on which most depends decides: what follows goes away from its machine.

    :param broker: URL of Redis, which must be running.
    :param queue: that both serve.
    :param machines: the names of two.
    :param metadata_dsn: of Airflow's database, which knows what is under way.
    """

    def __init__(self, broker: str, queue: str, machines: Sequence[str], *, metadata_dsn: str) -> None:
        self._app = Celery(broker=broker)
        self._queue = queue
        self._nodes = [f"celery@{name}" for name in machines]
        self._metadata_dsn = metadata_dsn
        self._heard: set[str] = set()
        self._begun: dict[str, str] = {}
        self._receiver = self._app.events.Receiver(
            self._app.connection_for_read(), handlers={"task-received": self._began, "worker-heartbeat": self._lives}
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def of_a_worker(self, env: dict[str, str]) -> dict[str, str]:
        """An environment with which a worker tells what it does, and loads this module."""
        config = {"worker_send_task_events": True, "imports": [__name__]}
        return env | {
            "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps(config),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{env['PYTHONPATH']}",
            _QUEUE_VARIABLE: self._queue,
        }

    def all_answer(self) -> bool:
        """Whether each worker can be told what to do, and is heard."""
        answers = self._app.control.ping(destination=self._nodes, timeout=1)
        return len(answers) == len(self._nodes) and self._heard >= set(self._nodes)

    def begin(self) -> None:
        """Leave the first task to the first machine."""
        self._tell("cancel_consumer", self._nodes[1:])

    def go_on_without(self, machine: str) -> None:
        """Leave all to the other from now on."""
        self._nodes.remove(f"celery@{machine}")
        self._tell("add_consumer", self._nodes)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._receiver.should_stop = True
        self._listener.join()
        self._app.close()

    def _listen(self) -> None:
        # One subscription from first to last: who subscribes anew loses what is told meanwhile.
        self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def _lives(self, event: dict[str, Any]) -> None:
        self._heard.add(event["hostname"])

    def _began(self, event: dict[str, Any]) -> None:
        self._begun[event["uuid"]] = event["hostname"]
        away_from = self._machine_of_what_matters(event["uuid"])
        self._tell("add_consumer", [node for node in self._nodes if node != away_from] or self._nodes)

    def _machine_of_what_matters(self, this: str) -> str:
        with psycopg.connect(self._metadata_dsn) as connection:
            # The id is Celery's as well as Airflow's.
            found = connection.execute(_WHAT_MATTERS, {"begun": list(self._begun), "this": this}).fetchone()
        return self._begun[found[0] if found else this]

    def _tell(self, command: str, nodes: Sequence[str]) -> None:
        """Until each has answered that is still there; telling twice does nothing more."""
        deadline, silent = time.monotonic() + PATIENCE_S, set(nodes)
        while silent := silent & set(self._nodes):
            assert time.monotonic() < deadline, f"{silent} do not answer {command}"
            tell = getattr(self._app.control, command)
            answers = tell(self._queue, destination=list(silent), reply=True, timeout=ANSWER_S)
            silent -= {node for answer in answers or [] for node in answer}


def leave_the_queue(sender: Any, **_: Any) -> None:
    """In a worker, before it begins a task that it was given."""
    sender.cancel_task_queue(os.environ[_QUEUE_VARIABLE])


if _QUEUE_VARIABLE in os.environ:
    task_received.connect(leave_the_queue, weak=False)
