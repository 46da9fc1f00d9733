"""From a bucket and a key to a server that answers SQL, against pgBackRest: (q) to (s).

Everybody restores the same data: a base backup each of the same cluster, and the same WAL after it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import psycopg

from dev.airflow_env import ROOT
from dev.bench.contest import Contender, Heat, alternate, console, median_wall, print_table
from dev.bench.dataset import MEBIBYTE, statements
from dev.bench.measure import Measured, measure_command
from dev.bench.ours import run_stage
from dev.bench.pgbackrest import COMMAND, FASTEST, PgBackRest
from dev.bench.world import DATABASE, World
from dev.ports import free_ports
from dev.servers.postgres import BIN_DIR, RUN_AS, SETTINGS, SUPERUSER
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.wal import SegmentName

_LOAD_BYTES = 96 * MEBIBYTE
_TABLE = "CREATE TABLE restored_statement (id bigint, taken_at timestamptz, attributes jsonb, body text)"
_LAST_ROW = "SELECT max(id) FROM restored_statement"
_PATIENCE_S = 60


def measure_restore(world: World, *, runs: int) -> None:
    """Measure and print; everybody speaks TLS with S3, and starts with an empty directory."""
    with ExitStack() as kept:
        ours = kept.enter_context(world.bucket())
        slow = _repository(world, kept.enter_context(world.bucket()), {})
        fast = _repository(
            world, kept.enter_context(world.bucket()), {"repo1-bundle": "y", "archive-async": "y", **FASTEST}
        )
        last = _fill(world, ours, [slow, fast])
        place = _Place(world, last)
        contenders: list[Contender] = [
            _pgbackrest(place, "q", "pgBackRest, its defaults", slow),
            _pgbackrest(place, "r", "pgBackRest, tuned: bundles, zst level -5, archive-async", fast),
            _ours(place, ours),
        ]
        results = alternate(world, contenders, runs=runs)
    print_table(f"Bucket to SQL, median of {runs}", results)
    walls = {letter: median_wall(results, letter) for letter in "qrs"}
    console.print("   ".join(f"s/{letter} = {walls['s'] / walls[letter]:.2f}" for letter in "qr"), highlight=False)


def _fill(world: World, ours: str, repositories: list[PgBackRest]) -> int:
    """Back the source up for everyone, then write and ship WAL; the id of the last row in it."""
    env = world.environment(ours, tls=True)
    world.source.start_receiving()
    console.print("backing up")
    run_stage("dev.bench.published", env | {"BENCH_TYPE": ArtefactType.BASEBACKUP.value})
    for repository in repositories:
        repository.create_stanza()
        subprocess.run([*COMMAND, "--type=full", "backup"], env=repository.environment, check=True)
    last = _load(world)
    segments = sorted(path for path in world.source.wal_directory.iterdir() if SegmentName.parse(path.name))
    console.print(f"shipping {len(segments)} segments")
    for repository in repositories:
        for path in segments:
            push = [*COMMAND, "--no-archive-async", "archive-push", path]
            subprocess.run(push, env=repository.environment, check=True)
    run_stage("dev.bench.wal_stage", env | {"PV_BACKUP_WAL_DIRECTORY": str(world.source.wal_directory)})
    return last


def _load(world: World) -> int:
    with psycopg.connect(world.source.postgres.dsn(DATABASE), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE restored_statement (id bigint, taken_at timestamptz, attributes jsonb, body text)"
        )
        with connection.cursor().copy("COPY restored_statement FROM STDIN") as copy:
            for row in islice(statements(_LOAD_BYTES), _LOAD_BYTES):
                copy.write_row(row)
        segment, last = _row(connection, f"SELECT pg_walfile_name(pg_switch_wal()), ({_LAST_ROW})")
    deadline = time.monotonic() + _PATIENCE_S
    while not (world.source.wal_directory / str(segment)).exists():
        if time.monotonic() > deadline:
            sys.exit(f"pg_receivewal has not finished {segment} within {_PATIENCE_S} s")
        time.sleep(0.1)
    world.source.receiver.stop()
    return int(str(last))


@dataclass(frozen=True)
class _Place:
    """Where one restoration goes, and how it is known to be whole.

    :ivar last: the id of the last row that was committed.
    """

    world: World
    last: int

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """An empty directory of the server's user; what runs on it is stopped at the end."""
        home = self.world.home / "restored"
        home.mkdir(mode=0o755)
        if RUN_AS:
            shutil.chown(home, RUN_AS, RUN_AS)
        # What an earlier contender left to the kernel is not this one's to wait for.
        os.sync()
        data = home / "data"
        try:
            yield data
        finally:
            subprocess.run(as_owner([BIN_DIR / "pg_ctl", "stop", "-s", "-m", "immediate", "-D", data]), check=True)
            shutil.rmtree(home)

    def demand_whole(self, **where: str | int) -> float:
        """Wait until the server takes writes, which took so many seconds more, then ask it for the last row."""
        began = time.perf_counter()
        with psycopg.connect(dbname="postgres", user=SUPERUSER, autocommit=True, **where) as connection:  # type: ignore[arg-type]
            while _row(connection, "SELECT pg_is_in_recovery()") != (False,):
                time.sleep(0.02)
        waited = time.perf_counter() - began
        with psycopg.connect(dbname=DATABASE, user=SUPERUSER, **where) as connection:  # type: ignore[arg-type]
            (last,) = _row(connection, _LAST_ROW)
        if last != self.last:
            sys.exit(f"the restored cluster ends at row {last}, the source at {self.last}")
        return waited


def _ours(place: _Place, bucket: str) -> Contender:
    def run(heat: Heat) -> dict[str, Measured]:
        env = place.world.environment(bucket, tls=True) | {"PYTHONPATH": str(ROOT / "plugins")}
        with place.directory() as data:
            command = [sys.executable, "-m", "pv_backup", "restore", data, "--latest", "--start"]
            measured = measure_command(command, env=env, servers=place.world.servers)
            place.demand_whole(host=str(data.with_name("data.server")), port=5432)
        return {"(s) this project, until it answers and takes writes": measured}

    return run


def _pgbackrest(place: _Place, letter: str, title: str, repository: PgBackRest) -> Contender:
    def run(heat: Heat) -> dict[str, Measured]:
        with place.directory() as data:
            port = free_ports(["restored"])["restored"]
            data.mkdir(mode=0o700)
            if RUN_AS:
                shutil.chown(data, RUN_AS, RUN_AS)
            env = repository.environment | {"PGBACKREST_PG1_PATH": str(data), "PGDATABASE": "postgres"}
            script = data.parent / "script"
            script.write_text(_script(data, port))
            answered = measure_command(as_owner(["bash", script]), env=env, servers=place.world.servers)
            more = place.demand_whole(host="127.0.0.1", port=port, password=env["PGPASSWORD"])
        return {
            f"({letter}) {title}, until it answers": answered,
            f"({letter.upper()}) the same, until it takes writes": replace(answered, wall_s=answered.wall_s + more),
        }

    return run


def _script(data: Path, port: int) -> str:
    # The source's parameters are no part of its directory; a server that recovers needs no fewer connections.
    settings: Mapping[str, str] = SETTINGS | {"port": str(port)}
    options = " ".join(f"-c {name}={value or chr(39) * 2}" for name, value in settings.items())
    return "\n".join(
        [
            "set -e",
            f"{' '.join(COMMAND)} --log-level-console=warn restore",
            f'{BIN_DIR}/pg_ctl start -s -w -t 600 -D "{data}" -l "{data.parent}/log" -o "{options}"',
            f"until {BIN_DIR}/psql -h 127.0.0.1 -p {port} -qAtc 'SELECT 1' > /dev/null; do sleep 0.02; done",
        ]
    )


def _repository(world: World, bucket: str, options: Mapping[str, str]) -> PgBackRest:
    home = world.home / bucket
    repository = PgBackRest(
        world=world,
        home=home,
        bucket=bucket,
        data_directory=world.source.postgres.data_directory.resolve(),
        options={"process-max": "2", "start-fast": "y", **options},
    )
    if RUN_AS:
        # archive-get runs as the server does.
        for path in (home, *home.iterdir()):
            path.chmod(0o777)
    return repository


def as_owner(command: list[str | Path]) -> list[str | Path]:
    """A command as the user that PostgreSQL runs as."""
    return ["runuser", "-u", RUN_AS, "--", *command] if RUN_AS else command


def _row(connection: psycopg.Connection, query: str) -> tuple[object, ...]:
    row = connection.execute(query).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return tuple(row)
