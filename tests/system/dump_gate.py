"""Lay hands on pg_dump at a chosen moment: it waits at a locked table until a test has found its process."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg

from tests.system.airflow_world import RUN_PATIENCE_S, AirflowWorld, DagRun, wait_for

MEBIBYTE = 1024 * 1024


class DumpGate:
    """Holds the source's table `gate` locked, at which every pg_dump has to wait before it dumps anything.

    Found while it waits, and watched once it runs, pg_dump can be stopped or killed after any number of bytes,
    however fast the machine.
    """

    def __init__(self, world: AirflowWorld, run: DagRun) -> None:
        self._world = world
        self._run = run
        self._lock: psycopg.Connection | None = None
        self.close()

    def close(self) -> None:
        """Let no pg_dump pass; waits for one that is being ended to be gone."""
        self._lock = psycopg.connect(self._world.source.superuser_dsn)
        self._lock.execute("LOCK TABLE gate IN ACCESS EXCLUSIVE MODE")

    def open(self) -> None:
        """Let it pass."""
        assert self._lock is not None
        self._lock.close()

    def waiting_dump(self) -> psutil.Process:
        """The run's pg_dump, once it has come to the gate."""
        wait_for(self._is_at_the_gate, run=self._run, meaning="pg_dump came to the gate")
        (dump,) = [child for child in self._run.process.children(recursive=True) if _name(child) == "pg_dump"]
        return dump

    def dump_that_has_written(self, megabytes: float) -> psutil.Process:
        """The next pg_dump, let through the gate and stopped (SIGSTOP) when it has written that much."""
        dump = self.waiting_dump()
        counters = Path(f"/proc/{dump.pid}/io")
        self.open()
        deadline = time.monotonic() + RUN_PATIENCE_S
        while (written := _written(counters)) < megabytes * MEBIBYTE:
            assert time.monotonic() < deadline, f"pg_dump wrote {written} bytes only:\n{self._run.log}"
            # Who sleeps is woken before others go on; who asks without a pause is made to wait at the wrong moment.
            time.sleep(0.001)
        dump.suspend()
        assert dump.status() != psutil.STATUS_ZOMBIE, "pg_dump was over before it could be stopped: dump more"
        return dump

    def _is_at_the_gate(self) -> bool:
        with psycopg.connect(self._world.source.superuser_dsn) as connection:
            waiting = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'pg_dump' AND wait_event_type = 'Lock'"
            ).fetchone()
        return bool(waiting and waiting[0])


def _name(process: psutil.Process) -> str:
    """Nothing for one that ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def _written(counters: Path) -> int:
    """`wchar` of proc(5): bytes written to anything, pipes included."""
    return int(counters.read_text().split("wchar: ")[1].split()[0])
