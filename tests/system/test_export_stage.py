"""The streaming stage in a process of its own: not a byte of it on any disk, and memory that does not grow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard
from psycopg import sql

from dev import airflow_env
from dev.servers.postgres import BIN_DIR
from pv_backup.services.artefacts import ArtefactType
from tests.support.clusters import SourceCluster
from tests.support.servers import TestStack
from tests.system.airflow_world import ROOT, AirflowWorld, opened
from tests.system.leaks import files_with

MEBIBYTE = 1024 * 1024
MARKER = b"sealed evidence of the streaming stage"
MOST_MEMORY = 128 * MEBIBYTE
# Twelve parts of 16 MiB against six: a stage that kept what it has sent would differ by 96 MiB. How many of the
# three parts that it may hold (two in flight, one filling) meet at the peak is a matter of timing.
SMALL_MB, LARGE_MB = 96, 192
NOISE = 3 * 16 * MEBIBYTE


# The kernel then refuses every byte that this process or a child writes into a file: RLIMIT_FSIZE (setrlimit(2)) holds
# for regular files on every file system, deleted, unnamed and in /dev/shm too; sockets and pipes are no files.
FORBID_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
# Before that Python itself tries out where temporary files could go, by writing four letters.
STAGE_WITHOUT_FILES = (
    f"import runpy, tempfile; tempfile.gettempdir(); {FORBID_FILES};"
    " runpy.run_module('dev.bench.stage', run_name='__main__')"
)


def stage(
    world: AirflowWorld, run: int, *, artefact_type: ArtefactType = ArtefactType.PG_DUMP, patience_s: float = 300
) -> dict[str, Any]:
    """Export and verify the source in a child that may not write files; what it measured of itself."""
    standalone = airflow_env.standalone_settings(
        vault_address=world.stack.vault.address,
        vault_token=world.stack.backup_token,
        s3_endpoint=world.stack.s3.endpoint,
        s3_key=world.stack.backup_user,
    )
    bench = {
        "BENCH_JOURNAL_DSN": world.journal.service_dsn,
        "BENCH_SOURCE_DSN": world.source.dump_dsn,
        "BENCH_SERVERS": "{}",
        "BENCH_RUN": str(run),
        "BENCH_TYPE": artefact_type.value,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}",
    }
    answer = subprocess.run(
        [sys.executable, "-c", STAGE_WITHOUT_FILES],
        env=world.env | standalone | bench,
        cwd=world.folder,
        capture_output=True,
        text=True,
        timeout=patience_s,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def world(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowWorld]:
    with opened(stack, tmp_path_factory.mktemp("stage")) as world:
        yield world


@pytest.fixture(scope="module")
def small_and_large(world: AirflowWorld) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stage on a source of so many incompressible MiB, and on one of twice as many."""
    world.fill_source(megabytes=SMALL_MB, marker=MARKER)
    small = stage(world, 1)
    world.fill_source(megabytes=LARGE_MB - SMALL_MB, marker=MARKER)
    return small, stage(world, 2)


def added_memory(measured: dict[str, Any]) -> int:
    """Bytes that the stage and PostgreSQL's tool take at their peak beyond the idle task."""
    return int(measured["export"]["peak_rss"] - measured["idle_rss"])


@pytest.mark.case("TC-INV-01")
def test_the_stage_and_pg_dump_work_where_no_file_can_be_written(small_and_large: tuple[dict[str, Any], ...]):
    assert [measured["size_bytes"] // MEBIBYTE for measured in small_and_large] == pytest.approx(
        [SMALL_MB, LARGE_MB], rel=0.2
    )


@pytest.mark.case("TC-INV-01")
def test_the_stage_leaves_no_piece_of_the_dump_behind(world: AirflowWorld, small_and_large: tuple[dict[str, Any], ...]):
    assert files_with(world.folder, MARKER) == []


@pytest.mark.case("TC-INV-01")
@pytest.mark.parametrize("folder", ["folder", "/dev/shm"])
def test_the_kernel_catches_a_dump_that_goes_through_a_file(world: AirflowWorld, folder: str, tmp_path: Path):
    """The control: the limit under which the stage works does stop who writes the dump to a disk, or to memory's."""
    spool = (tmp_path if folder == "folder" else Path(folder)) / f"{world.source.name}.dump"
    dump = ["-d", world.source.dump_dsn, "-Fc", "-Z0", "-f", str(spool)]
    script = f"{FORBID_FILES}; import subprocess, sys; sys.exit(abs(subprocess.run(sys.argv[1:]).returncode))"

    spooled = subprocess.run([sys.executable, "-c", script, str(BIN_DIR / "pg_dump"), *dump], cwd=tmp_path)

    assert spooled.returncode == signal.SIGXFSZ
    assert not spool.exists() or spool.read_bytes() == b""
    spool.unlink(missing_ok=True)


@pytest.mark.case("TC-INV-01")
def test_the_search_finds_the_marker_where_a_dump_was_spooled(world: AirflowWorld, tmp_path: Path):
    with psycopg.connect(world.source.superuser_dsn) as connection:
        connection.execute(sql.SQL("CREATE TABLE spooled AS SELECT {}::bytea").format(MARKER))
    plain, packed = tmp_path / "plain.dump", tmp_path / "packed.zst"
    command = [BIN_DIR / "pg_dump", "-d", world.source.dump_dsn, "-Fc", "-Z0", "-t", "spooled"]
    dump = subprocess.run(command, capture_output=True, check=True)
    plain.write_bytes(dump.stdout)
    packed.write_bytes(b"leading bytes" + zstandard.compress(dump.stdout))

    assert set(files_with(tmp_path, MARKER)) == {plain, packed}


@pytest.mark.case("TC-NOM-01")
def test_the_stage_adds_at_most_128_mib_to_an_idle_task(small_and_large: tuple[dict[str, Any], ...]):
    assert [added_memory(measured) for measured in small_and_large if added_memory(measured) > MOST_MEMORY] == []


@pytest.mark.case("TC-NOM-01")
def test_twice_the_data_takes_no_more_memory(small_and_large: tuple[dict[str, Any], ...]):
    small, large = map(added_memory, small_and_large)

    assert large - small < NOISE


@pytest.mark.case("TC-NOM-03", "TC-INV-01")
def test_a_base_backup_is_streamed_where_no_file_can_be_written_and_takes_no_more_memory(
    stack: TestStack, tmp_path: Path, source_cluster: SourceCluster
):
    with opened(stack, tmp_path, cluster=source_cluster) as world:
        world.fill_source(megabytes=LARGE_MB, marker=MARKER)
        measured = stage(world, 1, artefact_type=ArtefactType.BASEBACKUP)

        assert measured["size_bytes"] > LARGE_MB * MEBIBYTE
        assert added_memory(measured) <= MOST_MEMORY
        assert files_with(world.folder, MARKER) == []


@pytest.mark.soak
@pytest.mark.case("TC-NOM-01")
def test_ten_gigabytes_take_no_more_memory_than_one(stack: TestStack, tmp_path: Path):
    with opened(stack, tmp_path) as world:
        world.fill_source(megabytes=512)  # exported as hexadecimal text: twice as much
        one = added_memory(stage(world, 1, patience_s=600))
        world.fill_source(megabytes=9 * 512)
        ten = added_memory(stage(world, 2, patience_s=3600))

    assert max(one, ten) <= MOST_MEMORY
    assert ten - one < NOISE
