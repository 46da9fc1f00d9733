"""The disaster runbook, by the commands of its page: Vault, source and journal are lost, Airflow is not there."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from dev import guard
from dev.airflow_env import ROOT
from dev.provisioning.databases import OWNER, SERVICE, drop_database, password_of
from dev.servers.openbao import BINARY
from dev.servers.postgres import BIN_DIR, RUN_AS
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.export_sources import DumpSource, GlobalsSource
from tests.integration.bare_python import modules_beyond, packages_named
from tests.integration.command_line import CommandLine
from tests.integration.wal_world import wal_world
from tests.support.clusters import ClusterTemplate, open_directory
from tests.support.pages import blocks, filled_in, paste
from tests.support.servers import TestStack

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-INV-03")]

PAGE = ROOT / "docs" / "disaster.md"
ENTRIES = 12
_KEPT = ("backup_id", "type", "day", "outcome", "hash_sha3_256", "size_bytes", "k_backup_version")


def commands() -> dict[str, str]:
    """The page's executable blocks by their headings, those of one part in a row."""
    return {heading: "\n".join(found) for heading, found in blocks(PAGE).items()}


@dataclass(frozen=True)
class Rescue:
    """What is left after the disaster, and what somebody who reads the page has got out of it.

    :ivar said: what each part of the page printed.
    :ivar events: what the lost journal said, by object.
    """

    directory: Path
    said: dict[str, str]
    events: dict[str, tuple[object, ...]]
    journal: str

    @property
    def psql(self) -> list[str]:
        """The command that was printed at the end of the restoration."""
        (line,) = [line for line in self.said["3. The data"].splitlines() if line.startswith("  psql ")]
        return shlex.split(line)

    def sql(self, query: str) -> list[tuple[object, ...]]:
        host = self.directory / "cluster.server"
        with psycopg.connect(host=str(host), user="postgres", dbname="postgres") as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture(scope="module")
def rescue(_guarded: None, cluster_template: ClusterTemplate) -> Iterator[Rescue]:
    """Back up, lose all but bucket and snapshot, and read the page; on a stack of its own, since Vault is lost."""
    stack, directory = TestStack(), open_directory()
    try:
        stack.start()
        yield from _read_the_page(stack, cluster_template, directory)
    finally:
        _end(directory)
        stack.discard()
        shutil.rmtree(directory)


def _read_the_page(stack: TestStack, cluster_template: ClusterTemplate, directory: Path) -> Iterator[Rescue]:
    parts, said = commands(), dict[str, str]()
    cluster, journal, bucket = cluster_template.copied(), stack.new_journal(), stack.new_bucket()
    with wal_world(stack, cluster, journal, bucket) as world:
        command = CommandLine(world.backup)
        blocked = modules_beyond(packages_named(PAGE.read_text()))
        assert {"airflow", "jinja2"} <= blocked
        command.without(directory, blocked)
        # All that a new machine has, and the page's reader; the rest is the page's to set.
        bare = {"PATH": f"{BINARY.parent}:{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
        values = {name: value for name, value in command.environment.items() if name not in ("PATH", "PYTHONPATH")} | {
            "RESCUE": str(directory / "rescue"),
            "VAULT_SNAPSHOT": str(directory / "vault.snapshot"),
            "VAULT_CONFIG": str(stack.vault.home / "config.json"),
            "VAULT_DATA": str(stack.vault.home / "data"),
            "UNSEAL_SHARE": stack.vault._keys()["unseal_key"],
            "ADMIN_DSN": stack.postgres.dsn("postgres"),
            "PV_BACKUP_JOURNAL_OWNER_DSN": _journal(stack, OWNER),
            "PV_BACKUP_JOURNAL_DSN": _journal(stack, SERVICE),
        }
        cluster.sql("CREATE TABLE ledger (entry int PRIMARY KEY)")
        world.backup.back_up(GlobalsSource(server=cluster.server))
        world.backup.back_up(DumpSource(server=cluster.server))
        world.backup.back_up(BasebackupSource(server=cluster.server))
        for entry in range(ENTRIES):
            cluster.sql("INSERT INTO ledger VALUES (%s)", entry)
            cluster.write(0.1)
        assert world.run(closer=world.closer(older_than_s=0)).problems == []
        events = world.backup.journal.sql("SELECT * FROM pv_backup.backup_journal_events")
        of_root = values | {"VAULT_TOKEN": stack.vault.root_token}
        said["Before it happens"] = _run(filled_in(parts.pop("Before it happens"), of_root), bare, directory)
    cluster.destroy()
    cluster.discard()
    drop_database(stack.postgres, journal.superuser_dsn.rpartition("/")[2])
    stack.vault.stop()
    shutil.rmtree(stack.vault.home / "data")
    said["1. Vault"] = _run(filled_in(parts.pop("1. Vault"), values), bare, directory)
    # What is not installed there must stay so when the page sets the path.
    there = "PYTHONPATH=$PWD/plugins"
    assert there in parts["2. A machine"]
    parts["2. A machine"] = parts["2. A machine"].replace(there, f"PYTHONPATH={directory}:$PWD/plugins")
    # Another machine than Vault's, and one shell for all that happens there.
    shell = directory / "shell"
    shell.touch(mode=0o600)
    for heading, text in parts.items():
        said[heading] = _run(f". {shell}\n{filled_in(text, values)}\nexport -p > {shell}", bare, directory)
    yield Rescue(
        directory / "rescue",
        said,
        {str(event["object_key"]): tuple(event[name] for name in _KEPT) for event in events},
        stack.postgres.dsn("journal"),
    )


def _journal(stack: TestStack, role: str) -> str:
    return stack.postgres.dsn("journal", user=role, password=password_of(stack.credentials, role))


def _run(text: str, environment: dict[str, str], directory: Path) -> str:
    """One part of the page, in one shell, as somebody pastes it; it ends at the first command that fails."""
    try:
        # `bao status | grep` is to find what it looks for, though a sealed Vault makes `bao status` end with 2.
        return paste(f"set +o pipefail\n{text}", environment)
    finally:
        pid = directory / "rescue" / "vault.pid"
        if pid.exists():
            guard.watch_process(int(pid.read_text()))


def _end(directory: Path) -> None:
    """Stop what the page's commands left running: they are meant to."""
    pid, cluster = directory / "rescue" / "vault.pid", directory / "rescue" / "cluster"
    if (cluster / "postmaster.pid").exists():
        owner = ["runuser", "-u", RUN_AS, "--"] if RUN_AS else []
        subprocess.run([*owner, BIN_DIR / "pg_ctl", "stop", "-s", "-m", "immediate", "-D", cluster], check=True)
    if pid.exists():
        process = psutil.Process(int(pid.read_text()))
        process.kill()
        process.wait()


def test_the_page_begins_with_vault_and_ends_with_the_journal():
    assert list(commands()) == ["Before it happens", "1. Vault", "2. A machine", "3. The data", "4. The journal"]


@pytest.mark.case("TC-NOM-02")
def test_the_server_that_is_left_running_has_every_commit_that_was_shipped(rescue: Rescue):
    assert rescue.sql("SELECT array_agg(entry ORDER BY entry) FROM ledger") == [(list(range(ENTRIES)),)]
    assert rescue.sql("SELECT pg_is_in_recovery()") == [(False,)]


def test_the_page_shows_what_there_is_and_how_to_ask_it(rescue: Rescue):
    told = rescue.said["3. The data"]

    assert "from 2026/03/basebackup_20260329.enc" in told
    listed = subprocess.run([*rescue.psql, "-c", r"\l+"], capture_output=True, text=True, check=True)
    assert "template0" in listed.stdout


@pytest.mark.case("TC-INV-05")
def test_the_new_journal_knows_what_the_lost_one_knew(rescue: Rescue):
    with psycopg.connect(rescue.journal) as connection:
        query = f"SELECT object_key, {', '.join(_KEPT)} FROM pv_backup.backup_journal_events"
        rows = connection.execute(query.encode()).fetchall()

    assert {str(row[0]): row[1:] for row in rows} == rescue.events
    assert len(rescue.events) > 3
