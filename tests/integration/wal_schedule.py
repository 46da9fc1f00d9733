"""WAL shipping as the scheduler runs it, by the DAG's own task and callback, and a load that it must keep up with."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pv_backup.services.wal import is_wal_name
from tests.integration.wal_world import WalWorld
from tests.integration.worker import become_worker, run_task
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
        started = time.monotonic()
        error = run_task(DAG_ID, "ship_wal")
        return Ran(time.monotonic() - started, error)

    def run_until_well(self, *, timeout_s: float = 240) -> None:
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
    become_worker(
        monkeypatch,
        world.backup.stack,
        journal_dsn=journal_db.service_dsn,
        bucket=world.bucket.name,
        source_dsn=world.cluster.dump_dsn,
        wal_directory=world.directory,
    )
    return Schedule(world)


@dataclass
class Load:
    """Somebody who commits and fills segments all the time, in a thread; a context.

    :ivar kept: a directory that holds on to every file that pg_receivewal finished, after it was shipped too; on the
        file system of the cluster.
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
