"""Makes Celery workers take turns, so that a task never finds what the task before it left on its own machine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import psycopg
from celery import Celery

ANSWER_S = 5


class Turns:
    """Listens to the workers' events: who begins a task leaves the shared queue to the other until that one begins.

    A worker at work takes no other task, so the change is never too late. While another task waits or is at work nothing
    changes: of two that may run side by side, the one that begins first decides where their successor goes.

    :param broker: URL of Redis.
    :param queue: that all serve.
    :param machines: the names of two.
    :param metadata_dsn: of Airflow's database, which knows what else is under way.
    """

    def __init__(self, broker: str, queue: str, machines: Sequence[str], *, metadata_dsn: str) -> None:
        self._app = Celery(broker=broker)
        self._queue = queue
        self._nodes = [f"celery@{name}" for name in machines]
        self._metadata_dsn = metadata_dsn
        self._receiver = self._app.events.Receiver(
            self._app.connection_for_read(), handlers={"task-started": self._began}
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def all_answer(self) -> bool:
        """Whether each worker can be told what to do."""
        return len(self._app.control.ping(destination=self._nodes, timeout=1)) == len(self._nodes)

    def lost(self, machine: str) -> None:
        """Go on without a machine that is no more."""
        self._nodes.remove(f"celery@{machine}")
        for node in self._nodes:
            self._app.control.add_consumer(self._queue, destination=[node], reply=True, timeout=ANSWER_S)

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

    def _began(self, event: dict[str, Any]) -> None:
        worker = event["hostname"]
        others = [node for node in self._nodes if node != worker]
        if not others or not self._is_alone(event["uuid"]):
            return
        self._app.control.add_consumer(self._queue, destination=others, reply=True, timeout=ANSWER_S)
        self._app.control.cancel_consumer(self._queue, destination=[worker], reply=True, timeout=ANSWER_S)

    def _is_alone(self, celery_id: str) -> bool:
        with psycopg.connect(self._metadata_dsn) as connection:
            found = connection.execute(
                "SELECT 1 FROM task_instance WHERE state IN ('queued', 'running') AND external_executor_id <> %s LIMIT 1",
                [celery_id],
            )
            return found.fetchone() is None
