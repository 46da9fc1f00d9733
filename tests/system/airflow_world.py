"""What the system tests share: an Airflow of their own on the real servers, runs of the real DAG, their outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import psycopg

from dev.provisioning.databases import drop_database
from tests.support.clusters import SourceCluster
from tests.support.servers import Bucket, JournalDatabase, Source, TestStack
from tests.system.warm_airflow import WarmProcess, warm

# The DAG that a test runs when it names none.
DAG_ID = "pv_backup_daily_dump"
ROOT = Path(__file__).resolve().parents[2]
RUN_PATIENCE_S = 300
ROW_BYTES = 64 * 1024


@dataclass(frozen=True)
class Ended:
    """One `airflow dags test` that is over."""

    exit_code: int
    log: str

    def lines_with(self, *parts: str) -> list[str]:
        return [line for line in self.log.splitlines() if all(part in line for part in parts)]


class DagRun:
    """`airflow dags test` under way, in a process of its own, its output in a file."""

    def __init__(self, process: subprocess.Popen[bytes] | WarmProcess, *, log: Path) -> None:
        self._process = process
        self._log = log
        self.process = psutil.Process(process.pid)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> Ended:
        return Ended(self._process.wait(RUN_PATIENCE_S), self.log)

    def end(self) -> None:
        """Leave no process behind, whatever the test made of the run."""
        # One may end by itself before its turn comes.
        with suppress(psutil.NoSuchProcess):
            for child in [] if self.is_over else self.process.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            self.process.kill()
        self._process.wait()


@dataclass
class AirflowWorld:
    """One test's Airflow, with source, journal and bucket of its own."""

    stack: TestStack
    source: Source
    journal: JournalDatabase
    bucket: Bucket
    env: dict[str, str]
    folder: Path
    runs: list[DagRun] = field(default_factory=list)

    def start(
        self, dag_id: str = DAG_ID, *, conf: dict[str, str] | None = None, cold: bool = False, **settings: object
    ) -> DagRun:
        """Start a DAG; `settings` are those of SPEC section 5, in small letters.

        :param cold: start the very program, in an interpreter of its own; so must who sets what Airflow reads when it
            is imported, such as DAGS_ARE_PAUSED_AT_CREATION.
        """
        command = ["dags", "test", dag_id, *(["--conf", json.dumps(conf)] if conf else [])]
        env = self.env | {f"PV_BACKUP_{name.upper()}": str(value) for name, value in settings.items()}
        log = self.folder / f"run-{len(self.runs) + 1}.log"
        run = DagRun(_program(command, env=env, log=log) if cold else warm(command, env=env, log=log), log=log)
        self.runs.append(run)
        return run

    def run(self, dag_id: str = DAG_ID, *, conf: dict[str, str] | None = None, **settings: Any) -> Ended:
        return self.start(dag_id, conf=conf, **settings).wait()

    def fill_source(self, *, megabytes: float = 1, marker: bytes = b"") -> None:
        """Add so much data that does not compress, in table `payload`, each row beginning with the marker."""
        with psycopg.connect(self.source.superuser_dsn) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS gate (id int PRIMARY KEY)")
            connection.execute("CREATE TABLE IF NOT EXISTS payload (content bytea)")
            connection.execute("ALTER TABLE payload ALTER content SET STORAGE EXTERNAL")
            with connection.cursor().copy("COPY payload FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["bytea"])
                for _ in range(max(1, int(megabytes * 1024 * 1024 / ROW_BYTES))):
                    copy.write_row([marker + os.urandom(ROW_BYTES - len(marker))])

    def sql(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Ask the journal as superuser."""
        with psycopg.connect(self.journal.superuser_dsn, row_factory=psycopg.rows.dict_row) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def row(self, artefact_type: str = "pg_dump") -> dict[str, Any]:
        """The one row of that type."""
        (only,) = self.sql("SELECT * FROM pv_backup.backup_executions WHERE type = %s", artefact_type)
        return only

    def outcomes(self, artefact_type: str = "pg_dump") -> list[tuple[str, str]]:
        """(backup_id, outcome) of each journal event, oldest first."""
        events = self.sql(
            "SELECT backup_id::text, outcome FROM pv_backup.backup_journal_events WHERE type = %s ORDER BY occurred_at",
            artefact_type,
        )
        return [(event["backup_id"], event["outcome"]) for event in events]

    def audit(self, event_type: str) -> list[dict[str, Any]]:
        """Audit events of one type, oldest first."""
        return self.sql(
            "SELECT * FROM pv_backup.backup_audit_events WHERE event_type = %s ORDER BY occurred_at", event_type
        )

    def alerts(self) -> list[dict[str, Any]]:
        """What was recorded of each alert: level, code, cause, next step …"""
        return [event["details"] for event in self.audit("alert")]

    @property
    def metadata_dsn(self) -> str:
        """Airflow's own metadata database, as superuser."""
        return self.stack.postgres.dsn(self.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].rpartition("/")[2])

    def tasks(self, dag_id: str = "%") -> dict[str, tuple[str, int]]:
        """task_id → (state, number of tries) of the newest run, as Airflow recorded them."""
        with psycopg.connect(self.metadata_dsn) as connection:
            rows = connection.execute(
                "SELECT task_id, state, try_number FROM task_instance"
                " WHERE (dag_id, run_id) ="
                " (SELECT dag_id, run_id FROM dag_run WHERE dag_id LIKE %s ORDER BY id DESC LIMIT 1)",
                [dag_id],
            ).fetchall()
        return {task_id: (state, tries) for task_id, state, tries in rows}

    def versions(self) -> dict[str, list[str]]:
        """Every version of every object: key → version ids."""
        found: dict[str, list[str]] = {}
        listed = self.bucket.admin.list_object_versions(Bucket=self.bucket.name)
        for version in listed.get("Versions", []) + listed.get("DeleteMarkers", []):
            found.setdefault(version["Key"], []).append(version["VersionId"])
        return found

    def open_uploads(self) -> list[str]:
        """Keys of unfinished multipart uploads."""
        listed = self.bucket.admin.list_multipart_uploads(Bucket=self.bucket.name)
        return [upload["Key"] for upload in listed.get("Uploads", [])]

    def read(self, key: str) -> bytes:
        return self.bucket.admin.get_object(Bucket=self.bucket.name, Key=key)["Body"].read()

    def nothing_of_the_dump_in_the_bucket(self) -> bool:
        """Neither object nor manifest nor open upload; the roles, which may have made it, lie elsewhere."""
        return not [key for key in [*self.versions(), *self.open_uploads()] if "/backup_" in key]


def _program(command: list[str], *, env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    airflow = [str(Path(sys.executable).parent / "airflow"), *command]
    with log.open("wb") as output:
        return subprocess.Popen(
            airflow, env=env, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent, start_new_session=True
        )


def object_key(day: date, name: str = "backup") -> str:
    return f"{day:%Y/%m}/{name}_{day:%Y%m%d}.enc"


def manifest_key(day: date, name: str = "backup") -> str:
    return object_key(day, name).replace(".enc", ".manifest.json")


def mark_key(day: date) -> str:
    return object_key(day).replace(".enc", ".invalid.json")


def wait_for(what: Callable[[], Any], *, run: DagRun, meaning: str, every_s: float = 0.05) -> Any:
    """The first true answer; fails at once when the run ends without one."""
    deadline = time.monotonic() + RUN_PATIENCE_S
    while time.monotonic() < deadline:
        over = run.is_over
        if answer := what():
            return answer
        assert not over, f"the run ended before {meaning}:\n{run.log}"
        time.sleep(every_s)
    raise AssertionError(f"in {RUN_PATIENCE_S} s never {meaning}:\n{run.log}")


@contextmanager
def opened(stack: TestStack, folder: Path, *, cluster: SourceCluster | None = None) -> Iterator[AirflowWorld]:
    """A world on fresh databases and a fresh bucket; its processes and databases go at the end.

    :param cluster: what to back up, instead of a fresh database of the shared server.
    """
    journal, bucket = stack.new_journal(), stack.new_bucket()
    source = cluster or stack.new_source()
    env = stack.airflow_environment(home=folder / "airflow", source=source, journal=journal, bucket=bucket)
    temporary = folder / "tmp"
    temporary.mkdir()
    world = AirflowWorld(stack, source, journal, bucket, env | {"TMPDIR": str(temporary)}, folder)
    try:
        yield world
    finally:
        for run in world.runs:
            run.end()
        stack.restore()
        for made in [journal] if cluster else [journal, source]:
            drop_database(stack.postgres, made.superuser_dsn.rpartition("/")[2])
