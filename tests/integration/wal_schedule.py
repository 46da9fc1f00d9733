"""WAL shipping as the scheduler runs it, by the DAG's own task and callback, and a load that it must keep up with."""

from __future__ import annotations

import copy
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dev.airflow_env import backup_settings
from dev.provisioning.keys import SSE_KEY, TRANSIT_KEY
from pv_backup.services.wal import is_wal_name
from tests.dags.dag_world import dag_bag
from tests.integration.wal_world import WalWorld
from tests.support.servers import JournalDatabase

DAG_ID = "pv_backup_wal_shipping"


@dataclass(frozen=True)
class Ran:
    """One run: how long it took in seconds, and the error that it ended with."""

    seconds: float
    error: Exception | None


@dataclass(frozen=True)
class Schedule:
    """Runs the DAG's task in this process, with the connections that a worker has."""

    world: WalWorld

    def run(self) -> Ran:
        task = dag_bag().dags[DAG_ID].get_task("ship_wal")
        told: dict[str, str] = {}
        ti = SimpleNamespace(
            dag_id=DAG_ID, task_id="ship_wal", log_url="", try_number=1, max_tries=0, xcom_push=told.__setitem__
        )
        run = SimpleNamespace(run_after=datetime.now(UTC))
        context: Any = {"ti": ti, "task": task, "params": {}, "dag_run": run}
        started, error = time.monotonic(), None
        try:
            copy.copy(task).execute(context)
        except Exception as caught:  # noqa: BLE001 - whatever it is, the test looks at it
            error = caught
            for callback in task.on_failure_callback:
                callback(context | {"exception": caught})
            assert told, "the task's callback leaves word of what it told"
        return Ran(time.monotonic() - started, error)

    def run_until_well(self, *, timeout_s: float = 60) -> None:
        """Run on, as every minute would, until a run has nothing to complain of."""
        deadline = time.monotonic() + timeout_s
        while (ran := self.run()).error is not None:
            assert time.monotonic() < deadline, f"still failing after {timeout_s:.0f} s: {ran.error}"

    def trail(self) -> list[tuple[str, str]]:
        """(event, incident) of every alert and settlement on record, oldest first."""
        events = self.world.backup.journal.sql(
            "SELECT event_type, details->>'incident' AS incident FROM pv_backup.backup_audit_events ORDER BY id"
        )
        return [(event["event_type"], event["incident"].removeprefix(f"{DAG_ID}/")) for event in events]


def schedule_of(world: WalWorld, journal_db: JournalDatabase, monkeypatch: pytest.MonkeyPatch) -> Schedule:
    """Give this process the worker's connections and settings, until the test's end."""
    stack = world.backup.stack
    environment = backup_settings(
        source_dsn=world.cluster.dump_dsn,
        journal_dsn=journal_db.service_dsn,
        vault_address=stack.vault.address,
        vault_token=stack.backup_token,
        s3_endpoint=stack.s3.endpoint,
        s3_key=stack.backup_user,
        bucket=world.bucket.name,
        kms_key_id=SSE_KEY,
        transit_key=TRANSIT_KEY,
        wal_directory=world.directory,
    )
    for name, value in (environment | {"AIRFLOW_VAR_PV_BACKUP_SETTINGS": "{}"}).items():
        monkeypatch.setenv(name, value)
    return Schedule(world)


@dataclass
class Load:
    """Somebody who commits and fills segments all the time, in a thread; a context.

    :ivar kept: a directory that holds on to every file that pg_receivewal finished, after it was shipped too.
    """

    world: WalWorld
    kept: Path
    every_s: float = 0.5
    failure: list[Exception] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="load")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert self.failure == []

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.kept.iterdir()}

    def _go_on(self) -> None:
        try:
            while not self._ended.wait(self.every_s):
                self.world.cluster.write(0.3)
                self.world.cluster.switch_wal()
                self._keep()
        except Exception as error:  # noqa: BLE001 - the test's thread raises it
            self.failure.append(error)

    def _keep(self) -> None:
        for path in self.world.directory.iterdir():
            if is_wal_name(path.name) and not (self.kept / path.name).exists():
                # One that is shipped at this very moment is missed.
                with suppress(FileNotFoundError):
                    os.link(path, self.kept / path.name)
