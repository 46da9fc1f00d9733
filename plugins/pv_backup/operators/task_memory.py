"""What all tries of a task remember of alerts while the journal, whose business that is, can't be reached."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import Any, Final, Protocol

from pv_backup.services.alerts import Alert, Channel
from pv_backup.services.local_memory import REMIND_AFTER_S

log = logging.getLogger(__name__)

_KEY: Final = "told"


class TaskStates(Protocol):
    """Airflow's `task_state_store`, of one task in one run."""

    def get(self, key: str) -> Any:
        """What was kept, None if nothing."""

    def set(self, key: str, value: Any) -> None:
        """Keep it for later tries."""


class TaskMemory:
    """For a task that tries again for hours, each time perhaps on another machine, or in a pod with an empty `/tmp`.

    There the worker's own memory would make every try a mail. Airflow keeps this one, where any try finds it; what it
    can't say is sent rather than lost. It is asked here, before the channels' threads begin: `airflow dags test`
    answers one thread at a time.

    :param states: the task's `task_state_store`.
    """

    def __init__(self, states: TaskStates) -> None:
        self._states = states
        self._lock = Lock()
        self._told: dict[str, float] = {}
        try:
            self._told.update(states.get(_KEY) or {})
        except Exception:
            log.exception("Airflow doesn't say what earlier tries of this task told; people may hear of it again")

    def tell_once(self, alert: Alert, channel: Channel) -> bool:
        """Send the alert unless a try of this task has done so within a day; what the channel raises comes through.

        :returns: whether it was sent.
        """
        name = f"{channel.name} {alert.incident}"
        if time.time() - self._told.get(name, 0) < REMIND_AFTER_S:
            return False
        channel.send(alert)
        with self._lock:
            self._told[name] = time.time()
            try:
                self._states.set(_KEY, self._told)
            except Exception:
                log.exception("Airflow doesn't keep what this try told; the next one may tell it again")
        return True

    def forget(self, flow: str) -> None:
        """Nothing: the outage is this run's own, and a journal that comes and goes must not make it news."""
