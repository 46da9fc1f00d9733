"""A worker that ships WAL, each run in a process of its own that a test may kill, or that kills itself at a step.

Run as `python -m tests.integration.wal_worker`: the first line of standard input says where the servers are, each
further one orders a run. It answers each order with the run's process id and, in the end, with how it ended.

A run is a fork of this process, which has all modules loaded and no connection open: 0.1 s where a new Python
takes 1.5.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import hvac
from botocore.config import Config
from sqlalchemy import event
from sqlalchemy.orm import sessionmaker

from dev.provisioning.keys import SSE_KEY, TRANSIT_KEY
from dev.servers.seaweedfs import REGION
from pv_backup.services.database import engine_for
from pv_backup.services.key_wrapping import TransitKeyWrapper
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.s3_client import CLIENT_OPTIONS
from pv_backup.services.settings import Settings
from pv_backup.services.wal_run import WalRun
from pv_backup.services.wal_spool import WalFile, WalSpool
from pv_backup.services.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Where a worker finds everything."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    vault_address: str
    vault_token: str
    journal_dsn: str

    def as_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    def bench(self, hear: Callable[[str], None], *, parallelism: int) -> Workbench:
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(**CLIENT_OPTIONS),
        )
        store = ObjectStore(client=client, bucket=self.bucket, kms_key_id=SSE_KEY, timeout_s=60)
        vault = hvac.Client(url=self.vault_address, token=self.vault_token, timeout=10)
        engine = engine_for(self.journal_dsn)
        event.listen(engine, "commit", lambda connection: hear("journal: before COMMIT"))
        return Workbench.over(
            Settings(bucket=self.bucket, kms_key_id=SSE_KEY, transit_key=TRANSIT_KEY, wal_parallelism=parallelism),
            store=store,
            keys=TransitKeyWrapper(client=vault, key_name=TRANSIT_KEY),
            sessions=sessionmaker(engine),
        )


@dataclass(frozen=True, kw_only=True)
class Order:
    """One run.

    :ivar steps: a file that gets the name of each step as it comes.
    :ivar kill_at: the number of the step, from 1, at which the run kills itself; 0: at none.
    """

    directory: str
    steps: str
    kill_at: int = 0
    parallelism: int = 1

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

    def __init__(self, order: Order) -> None:
        self._log = Path(order.steps).open("ab", buffering=0)  # noqa: SIM115 - open as long as the process lives
        self._kill_at = order.kill_at
        self._lock = threading.Lock()
        self._count = 0

    def hear(self, step: str) -> None:
        with self._lock:
            self._count += 1
            self._log.write(f"{step}\n".encode())
            if self._count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


class _HeardSpool(WalSpool):
    def __init__(self, *, directory: Path, hear: Callable[[str], None]) -> None:
        super().__init__(directory=directory)
        self._hear = hear

    def files(self) -> list[WalFile]:
        found = super().files()
        self._hear("directory: listed")
        return found

    def remove(self, file: WalFile) -> None:
        self._hear("directory: before unlink")
        super().remove(file)
        self._hear("directory: after unlink")


def _hear_requests(hear: Callable[[str], None]) -> None:
    """Be told of every request to S3 and Vault, sent but not answered, and answered."""
    answer_of = http.client.HTTPConnection.getresponse

    def getresponse(self: http.client.HTTPConnection) -> Any:
        method = getattr(self, "_method", "?")
        hear(f"{self.port}: {method} sent, answer not read")
        answer = answer_of(self)
        hear(f"{self.port}: {method} answered")
        return answer

    http.client.HTTPConnection.getresponse = getresponse  # type: ignore[method-assign]


def _ship(bench: Workbench, order: Order, steps: Steps) -> None:
    rules = bench.settings.model_copy(update={"wal_parallelism": order.parallelism})
    spool = _HeardSpool(directory=Path(order.directory), hear=steps.hear)
    WalRun(bench=replace(bench, settings=rules), spool=spool, closer=None).run()


def main() -> None:
    hearing: list[Callable[[str], None]] = []
    _hear_requests(lambda step: hearing[0](step))
    bench = Servers(**json.loads(sys.stdin.readline())).bench(lambda step: hearing[0](step), parallelism=1)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            steps = Steps(order)
            hearing.append(steps.hear)
            _ship(bench, order, steps)
            os._exit(0)
        print(pid, flush=True)
        _, status, usage = os.wait4(pid, 0)
        ended = Ended(exit_code=os.waitstatus_to_exitcode(status), peak_kib=usage.ru_maxrss)
        print(json.dumps(asdict(ended)), flush=True)


if __name__ == "__main__":
    main()
