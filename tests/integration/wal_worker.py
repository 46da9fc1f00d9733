"""A worker that ships WAL: `python -m tests.integration.wal_worker` (:mod:`tests.integration.killable`).

Its first line of standard input says where the servers are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
from tests.integration import killable
from tests.integration.killable import Steps


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
class Order(killable.Order):
    """One run over a directory."""

    directory: str
    parallelism: int = 1


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


def main() -> None:
    steps, answers = Steps(), killable.answers_alone()
    killable.hear_requests(steps.hear)
    bench = Servers(**json.loads(sys.stdin.readline())).bench(steps.hear, parallelism=1)

    def ship(order: Order) -> None:
        rules = bench.settings.model_copy(update={"wal_parallelism": order.parallelism})
        spool = _HeardSpool(directory=Path(order.directory), hear=steps.hear)
        WalRun(bench=replace(bench, settings=rules), spool=spool, closer=None).run()

    killable.serve(Order, ship, steps=steps, answers=answers)


if __name__ == "__main__":
    main()
