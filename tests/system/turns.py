"""Makes Celery workers take turns, so that no task finds what the task before it left on its own machine."""

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

    A worker at work takes no other task, so the change is never too late. The second of two tasks that run side by
    side changes nothing: what follows them goes to its machine, and away from that of the first.

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
        self._begun: list[str] = []
        self._receiver = self._app.events.Receiver(
            self._app.connection_for_read(), handlers={"task-started": self._began}
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def all_answer(self) -> bool:
        """Whether each worker can be told what to do."""
        return len(self._app.control.ping(destination=self._nodes, timeout=1)) == len(self._nodes)

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

    def _began(self, event: dict[str, Any]) -> None:
        worker = event["hostname"]
        others = [node for node in self._nodes if node != worker]
        if others and not self._is_any_under_way():
            self._tell("add_consumer", others)
            self._tell("cancel_consumer", [worker])
        self._begun.append(event["uuid"])

    def _is_any_under_way(self) -> bool:
        """Whether a task that began before is not over yet; the id is Celery's as well as Airflow's."""
        with psycopg.connect(self._metadata_dsn) as connection:
            found = connection.execute(
                "SELECT 1 FROM task_instance WHERE state IN ('queued', 'running') AND external_executor_id = ANY(%s)",
                [self._begun],
            )
            return found.fetchone() is not None

    def _tell(self, command: str, nodes: list[str]) -> None:
        getattr(self._app.control, command)(self._queue, destination=nodes, reply=True, timeout=ANSWER_S)
