"""The test's end of :mod:`tests.integration.killable`: orders runs, and is told how they ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from dev import guard
from tests.integration.killable import Ended, Order
from tests.integration.wal_worker import Servers
from tests.integration.wal_world import ShippingWorld
from tests.support.servers import JournalDatabase

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """Runs in processes of their own, one at a time; a context.

    :param module: the worker's program.
    :param first_line: what it wants to know before the first order.
    :param environment: what it has of that besides this process's own.
    """

    def __init__(self, module: str, *, first_line: str = "", environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        guard.watch_process(self._process.pid)
        self._tell(first_line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def start(self, order: Order) -> int:
        """Begin a run; its process id."""
        self._tell(order.as_line())
        return int(self._answer())

    def end(self) -> Ended:
        """Wait for the run's end."""
        return Ended(**json.loads(self._answer()))

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def steps_of(path: Path) -> list[str]:
    """What a run's order made it write down."""
    return path.read_text().splitlines() if path.exists() else []


def wal_worker(world: ShippingWorld, journal: JournalDatabase) -> Worker:
    """One that ships WAL."""
    return worker_of(world, "tests.integration.wal_worker", journal_dsn=journal.service_dsn)


def worker_of(world: ShippingWorld, module: str, *, journal_dsn: str) -> Worker:
    """One that is told where the servers of a world are."""
    stack = world.backup.stack
    servers = Servers(
        endpoint=stack.s3.endpoint,
        access_key=stack.backup_user.access_key,
        secret_key=stack.backup_user.secret_key,
        bucket=world.bucket.name,
        vault_address=stack.vault.address,
        vault_token=stack.backup_token,
        journal_dsn=journal_dsn,
    )
    return Worker(module, first_line=servers.as_line())
