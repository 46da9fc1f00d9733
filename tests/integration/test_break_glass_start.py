"""Break-glass: one command restores a cluster and starts a server on it, which nothing of its source rules."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.servers.postgres import BIN_DIR, RUN_AS
from pv_backup.cli.starting import start_server
from pv_backup.services.postgres import Server
from tests.integration.break_glass_world import FAILED, OF_THE_SOURCE, OK, SEGMENTS, SUPERUSER, Left
from tests.support.clusters import open_directory

pytestmark = [pytest.mark.case("TC-NOM-04")]


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = open_directory()
    yield folder
    for pid_file in folder.glob("*/postmaster.pid"):
        owner = ["runuser", "-u", RUN_AS, "--"] if RUN_AS else []
        stop = [BIN_DIR / "pg_ctl", "stop", "-s", "-m", "immediate", "-D", pid_file.parent]
        subprocess.run([*owner, *stop], check=True)
    shutil.rmtree(folder)


def printed(text: str) -> tuple[list[str], list[str]]:
    """The commands that ask the started server something, and end it."""
    lines = [line.strip() for line in text.splitlines()]
    (psql,) = [line for line in lines if line.startswith("psql ")]
    (stop,) = [line for line in lines if "pg_ctl stop" in line]
    return shlex.split(psql), shlex.split(stop)


def test_one_command_leaves_a_server_that_answers(left: Left, folder: Path):
    restored = left.command("restore", folder / "data", "--latest", "--start")

    assert restored.returncode == OK, restored.stderr.decode()
    psql, stop = printed(restored.stdout.decode())
    asked = subprocess.run([*psql, "-Atc", "SELECT count(*) FROM ledger"], capture_output=True, check=True)
    assert asked.stdout == f"{SEGMENTS}\n".encode()
    assert psql[psql.index("-U") + 1] == SUPERUSER
    subprocess.run(stop, check=True, capture_output=True)
    assert not (folder / "data" / "postmaster.pid").exists()


@pytest.mark.case("TC-INV-04")
def test_nothing_that_the_source_was_told_rules_the_server(left: Left, folder: Path):
    data = folder / "a 'name' with spaces"
    restored = left.command("restore", data, "--latest")
    assert restored.returncode == OK, restored.stderr.decode()
    archive = folder / "archive"
    archive.mkdir()
    archive.chmod(0o777)
    told = OF_THE_SOURCE | {"recovery_target_name": "never", "recovery_target_time": "2001-01-01 00:00:00+00"}
    settings = "".join(f"{name} = '{value.format(folder=archive)}'\n" for name, value in told.items())
    (data / "postgresql.auto.conf").write_text(settings)

    started = start_server(Server({}, BIN_DIR), data, port=None, superuser=SUPERUSER, database="postgres")

    script = ["CREATE TABLE written ()", "SELECT pg_switch_wal()", "CHECKPOINT", *(f"SHOW {name}" for name in told)]
    words = [word for line in script for word in ("-c", line)]
    asked = subprocess.run(
        [*shlex.split(started.psql), "-qAt", *words], capture_output=True, text=True, check=False, timeout=30
    )
    assert (asked.returncode, asked.stderr) == (0, "")
    shown = dict(zip(told, asked.stdout.splitlines()[1:], strict=True))
    home = data.with_name(f"{data.name}.server")
    assert shown.pop("log_directory")
    assert shown == {
        "archive_mode": "off",
        "archive_command": "(disabled)",
        "port": "5432",
        "unix_socket_directories": '"' + str(home).replace('"', '""') + '"',
        "hba_file": f"{home}/pg_hba.conf",
        "ident_file": f"{home}/pg_ident.conf",
        "max_logical_replication_workers": "0",
        "ssl": "off",
        "logging_collector": "off",
        **dict.fromkeys(shown.keys() & {"listen_addresses", "external_pid_file", "synchronous_standby_names"}, ""),
        **dict.fromkeys((name for name in shown if name.endswith("_libraries") or name.startswith("recovery_")), ""),
    }
    assert list(archive.iterdir()) == []
    subprocess.run(shlex.split(started.stop), check=True, capture_output=True)


def test_a_port_lets_in_who_knows_a_password_of_the_cluster(left: Left, folder: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        refused = left.command("restore", folder / "data", "--latest", "--start", "--port", str(port))

    assert refused.returncode == FAILED
    assert "PostgreSQL does not start on it" in refused.stderr.decode()
    assert "Address already in use" in refused.stderr.decode()
    assert (folder / "data" / "PG_VERSION").exists()


def test_a_port_without_a_start_is_a_mistake(left: Left, folder: Path):
    refused = left.command("restore", folder / "data", "--latest", "--port", "5433")

    assert refused.returncode != OK
    assert b"--start" in refused.stderr
    assert not (folder / "data").exists()
