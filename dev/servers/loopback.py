"""A server on ports of loopback: started unless it runs already, and waited for until it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from dev.ports import require_free
from dev.processes import Daemon


class LoopbackServer(ABC):
    """What is the same for each of them.

    :param name: what it is called in messages.
    :param home: directory of this server; made when missing.
    :param ports: by the name that a message calls each.
    :param answers_within_s: how long a start may take.
    """

    def __init__(self, *, name: str, home: Path, ports: Mapping[str, int], answers_within_s: float) -> None:
        self.home = home
        self._ports = ports
        self._daemon = Daemon(name=name, home=home)
        self._answers_within_s = answers_within_s

    def start(self) -> bool:
        """Start the server, setting it up on first use, and wait until it answers.

        :returns: False when it was running already.
        :raises PortTakenError: when another program holds a port.
        :raises ServerFailedError: when it does not come up; with the end of its log.
        """
        if self._daemon.is_running():
            return False
        require_free(self._ports, server=self._daemon.name)
        self._launch()
        self._daemon.wait_until(self.answers, timeout_s=self._answers_within_s)
        return True

    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._daemon.is_running()

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does what it is there for."""

    @abstractmethod
    def _launch(self) -> None:
        """Set up what is missing, and start the process."""
