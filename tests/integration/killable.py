"""Runs in processes of their own that a test may kill, or that kill themselves at a step; the worker's end of it.

A worker is a module run as a program: it loads everything once, then each line of its standard input orders a run. It
answers each order with the run's process id and, in the end, with how it ended. A run is a fork, which has all modules
loaded and no connection open: 0.1 s where a new Python takes 1.5.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True, kw_only=True)
class Order:
    """One run.

    :ivar steps: a file that gets the name of each step as it comes.
    :ivar kill_at: the number of the step, from 1, at which the run kills itself; 0: at none.
    :ivar kill_from: the name of the step that is number 1, the first of that name; empty: the first of all. Threads
        share out the steps anew in each run, so that a number alone does not tell what a run is at.
    """

    steps: str
    kill_at: int = 0
    kill_from: str = ""

    def as_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended.

    :ivar exit_code: negative for a signal.
    :ivar peak_kib: the most memory that it ever held, in KiB.
    """

    exit_code: int
    peak_kib: int


class Steps:
    """Counts what a run does, and ends it with SIGKILL where it shall end."""

    def __init__(self) -> None:
        self._log: Any = None
        self._kill_at = 0
        self._kill_from = ""
        self._lock = threading.Lock()
        self._count = 0

    def begin(self, order: Order) -> None:
        """In the run's own process."""
        self._log = Path(order.steps).open("ab", buffering=0)  # noqa: SIM115 - open as long as the process lives
        self._kill_at = order.kill_at
        self._kill_from = order.kill_from

    def hear(self, step: str) -> None:
        with self._lock:
            self._log.write(f"{step}\n".encode())
            if self._kill_from and step != self._kill_from:
                return
            self._kill_from = ""
            self._count += 1
            if self._count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def hear_requests(hear: Callable[[str], None]) -> None:
    """Be told of every request to S3 and Vault, sent but not answered, and answered."""
    answer_of = http.client.HTTPConnection.getresponse

    def getresponse(self: http.client.HTTPConnection) -> Any:
        method = getattr(self, "_method", "?")
        hear(f"{self.port}: {method} sent, answer not read")
        answer = answer_of(self)
        hear(f"{self.port}: {method} answered")
        return answer

    http.client.HTTPConnection.getresponse = getresponse  # type: ignore[method-assign]


def answers_alone() -> TextIO:
    """Standard output, for answers and nothing else: what Airflow logs there goes nowhere from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return answers


def serve(order_of: Callable[..., Order], run: Callable[[Any], None], *, steps: Steps, answers: TextIO) -> None:
    """Take orders until standard input ends.

    :param order_of: makes an order of the fields of a line.
    """
    for line in sys.stdin:
        order = order_of(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            steps.begin(order)
            run(order)
            os._exit(0)
        print(pid, file=answers, flush=True)
        _, status, usage = os.wait4(pid, 0)
        ended = Ended(exit_code=os.waitstatus_to_exitcode(status), peak_kib=usage.ru_maxrss)
        print(json.dumps(asdict(ended)), file=answers, flush=True)
