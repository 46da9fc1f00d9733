"""Servers as processes: started apart from the terminal, found again by another command, stopped for certain."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from dev import guard


class ServerFailedError(RuntimeError):
    """A server of the stack did not start, or ended on its own; the message carries the end of its log."""


class Daemon:
    """One server process, remembered in a file, so that ``make down`` finds what ``make up`` started.

    :param name: what the server is called in messages.
    :param home: the server's own directory; ``process.json`` and ``server.log`` are kept there.
    """

    def __init__(self, *, name: str, home: Path) -> None:
        self.name = name
        self.log = home / "server.log"
        self._record = home / "process.json"

    def start(
        self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, user: str | None = None
    ) -> None:
        """Start the server in a session of its own, so that Ctrl-C in the terminal that ran ``make up`` spares it.

        :param env: added to our own environment.
        :param user: whom to become first; needs root.
        """
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                # The directory we were called from may be closed to the other user.
                cwd="/",
                user=user,
                group=user,
                extra_groups=[] if user else None,
                start_new_session=True,
            )
        process = psutil.Process(child.pid)
        guard.watch_process(child.pid)
        self._record.write_text(json.dumps({"pid": child.pid, "created": process.create_time()}))

    def wait_until(self, answers: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait for the server to answer, and fail at once, with the end of its log, when it has died instead.

        :raises ServerFailedError: after ``timeout_s`` seconds, or as soon as the process is gone.
        """
        deadline = time.monotonic() + timeout_s
        while not answers():
            died = not self.is_running()
            if died or time.monotonic() > deadline:
                reason = "ended while starting" if died else f"did not answer within {timeout_s:.0f} s"
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise ServerFailedError(f"{self.name} {reason}. The end of {self.log}:\n{tail}")
            time.sleep(0.05)

    def process(self) -> psutil.Process | None:
        """The running server, or None; a process that merely got the same id after a reboot is not it."""
        try:
            record = json.loads(self._record.read_text())
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["created"]) < 1
            return process if same and _lives(process) else None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None

    def is_running(self) -> bool:
        """Whether the server's process lives; says nothing about whether it answers."""
        return self.process() is not None

    def stop(self, *, how: signal.Signals = signal.SIGTERM, timeout_s: float = 30) -> None:
        """End the server and wait until it is gone; one that ignores ``how`` for ``timeout_s`` seconds is killed."""
        process = self.process()
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(timeout_s)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(timeout_s)
        self._record.unlink(missing_ok=True)

    def kill_family(self, *, timeout_s: float = 10) -> None:
        """SIGKILL for the server and for every process that it has started, as a machine that goes down would.

        :raises TimeoutError: when one of them is still there after ``timeout_s`` seconds.
        """
        process = self.process()
        family = [process, *process.children(recursive=True)] if process else []
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        deadline = time.monotonic() + timeout_s
        while survivors := [member.pid for member in family if _lives(member)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: processes {survivors} outlived SIGKILL by {timeout_s:.0f} s")
            time.sleep(0.01)
        self._record.unlink(missing_ok=True)


def _lives(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie has given back all it had and waits only to be counted."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
