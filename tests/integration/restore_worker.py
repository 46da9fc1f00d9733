"""A worker that restores in a sandbox: `python -m tests.integration.restore_worker`.

See :mod:`tests.integration.killable`. Its first line of standard input says where the servers are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_backup.services.postgres import Server
from pv_backup.services.restoration import content
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.cluster import ClusterRestore
from pv_backup.services.restoration.dump import DumpRestore
from pv_backup.services.restoration.dump_choice import choose_dump
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.workbench import Workbench
from tests.integration import killable
from tests.integration.killable import Steps
from tests.integration.wal_worker import Servers

ANSWERS = "the server answers queries"
PIECE = "a piece for the tool"


@dataclass(frozen=True, kw_only=True)
class Order(killable.Order):
    """One restoration.

    :ivar base: where to make the sandbox.
    :ivar dump: of the dump; else of the cluster.
    :ivar hold: whether to stay there, once the server answers.
    """

    base: str
    dump: bool
    hold: bool = False


def _hear_tools(steps: Steps) -> None:
    start = subprocess.Popen.__init__

    def started(self: Any, command: list[str], *args: Any, **kwargs: Any) -> None:
        start(self, command, *args, **kwargs)
        # A tool that is watched hides behind the shell that waits for the word.
        steps.hear(f"started: {Path(str(command[4] if command[0] == '/bin/sh' else command[0])).name}")

    subprocess.Popen.__init__ = started  # type: ignore[method-assign]


def _hear_pieces(steps: Steps) -> None:
    whole = content.unpacked

    def unpacked(*args: Any) -> Iterator[bytes]:
        for piece in whole(*args):
            yield piece
            steps.hear(PIECE)

    content.unpacked = unpacked  # type: ignore[attr-defined]


def _restoration(bench: Workbench, order: Order, sandbox: Sandbox) -> AbstractContextManager[Any]:
    parts: dict[str, Any] = {"store": bench.store, "keys": bench.keys, "tools": Server({}), "sandbox": sandbox}
    if order.dump:
        return DumpRestore(**parts).restored(*choose_dump(published_backups(bench.store), None))
    return ClusterRestore(**parts, directory=sandbox.data).recovered(RecoveryTarget())


def restore_with(bench: Workbench, hear: Callable[[str], None]) -> Callable[[Order], None]:
    def restore(order: Order) -> None:
        with Sandbox(Path(order.base)) as sandbox:
            with _restoration(bench, order, sandbox):
                hear(ANSWERS)
                if order.hold:
                    time.sleep(600)
            hear("the server is stopped")

    return restore


def main() -> None:
    steps, answers = Steps(), killable.answers_alone()
    killable.hear_requests(steps.hear)
    bench = Servers(**json.loads(sys.stdin.readline())).bench(steps.hear, parallelism=1)
    _hear_tools(steps)
    _hear_pieces(steps)
    killable.serve(Order, restore_with(bench, steps.hear), steps=steps, answers=answers)


if __name__ == "__main__":
    main()
