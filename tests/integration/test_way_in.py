"""A cluster that came back whole is entered, whatever doors its owner closed; one that is not is named, and soon."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dev.provisioning.databases import DUMP
from dev.servers.postgres import BIN_DIR, RUN_AS
from pv_backup.services.errors import RestoreFailed
from pv_backup.services.evidence.document import Result
from pv_backup.services.postgres import Server
from pv_backup.services.restoration import server as restored_server
from pv_backup.services.restoration.amcheck import amcheck
from pv_backup.services.restoration.contract import run_contract_everywhere
from pv_backup.services.restoration.server import RestoredServer
from tests.support.clusters import ClusterTemplate, SourceCluster

pytestmark = pytest.mark.case("TC-NOM-04")

CLOSED = "ALTER DATABASE {} ALLOW_CONNECTIONS false"
WITHOUT_TEMPLATE1 = ("ALTER DATABASE template1 IS_TEMPLATE false", "DROP DATABASE template1")


@pytest.fixture
def cluster(cluster_template: ClusterTemplate) -> Iterator[SourceCluster]:
    """One that a test may do anything to, with a database besides those of initdb."""
    cluster = cluster_template.copied()
    try:
        cluster.receiver.kill()
        cluster.sql("CREATE DATABASE archive")
        yield cluster
    finally:
        cluster.discard()


def served(cluster: SourceCluster, settings: dict[str, str] | None = None) -> RestoredServer:
    cluster.postgres.stop()
    return RestoredServer(data=cluster.postgres.data_directory, tools=Server({}), settings=settings or {})


def break_catalogue(data: Path, *, database: str) -> None:
    """Break the first page of its pg_class."""
    (path,) = data.glob(f"base/{database}/1259")
    with path.open("r+b") as file:
        file.write(b"\x5a" * 8192)


def single_user(cluster: SourceCluster, statement: str) -> None:
    command = [str(BIN_DIR / "postgres"), "--single", "-D", str(cluster.postgres.data_directory), "template0"]
    runner = ["runuser", "-u", RUN_AS, "--"] if RUN_AS else []
    subprocess.run([*runner, *command], input=f"{statement}\n".encode(), check=True, capture_output=True, cwd="/")


@pytest.mark.parametrize(
    ("statements", "superuser", "database"),
    [
        ([], "postgres", "template1"),
        ([CLOSED.format("template1")], "postgres", "postgres"),
        ([CLOSED.format("template1"), CLOSED.format("postgres")], "postgres", "archive"),
        (WITHOUT_TEMPLATE1, "postgres", "postgres"),
        (["ALTER ROLE postgres NOSUPERUSER"], DUMP, "template1"),
        (["ALTER ROLE postgres NOLOGIN", CLOSED.format("template1")], DUMP, "postgres"),
    ],
    ids=["as made", "template1 closed", "two closed", "no template1", "postgres is no superuser", "role and database"],
)
def test_it_is_entered_and_checked(cluster: SourceCluster, tmp_path: Path, statements, superuser: str, database: str):
    server = served(cluster)
    for statement in statements:
        single_user(cluster, statement)
    (tmp_path / "answers.sql").write_text("SELECT 1 WHERE false\n")

    with server:
        server.wait_until_recovered()

        assert (server.superuser, server.database) == (superuser, database)
        checks = [*run_contract_everywhere(server.server, tmp_path, None), amcheck(server.server(), everywhere=True)]
        assert [check for check in checks if check.result is not Result.PASSED] == []


def test_a_catalogue_page_that_cannot_be_read_is_named(cluster: SourceCluster, monkeypatch):
    monkeypatch.setattr(restored_server, "_REFUSED_S", 1)
    server = served(cluster)
    break_catalogue(cluster.postgres.data_directory, database="1")

    with server, pytest.raises(RestoreFailed) as refused:
        server.wait_until_recovered()

    assert "invalid page in block 0 of relation base/1/1259" in refused.value.what
    assert "run pg_amcheck" in refused.value.remedy


def test_a_cluster_that_is_closed_altogether_is_named(cluster: SourceCluster):
    server = served(cluster)
    single_user(cluster, "UPDATE pg_database SET datallowconn = false")

    with server, pytest.raises(RestoreFailed, match="no database of the restored cluster may be connected to"):
        server.wait_until_recovered()


def test_a_recovery_is_waited_for_however_long_it_takes(cluster: SourceCluster, monkeypatch):
    monkeypatch.setattr(restored_server, "_REFUSED_S", 0)
    server = served(cluster, {"restore_command": "sleep 1; exit 1", "recovery_target_timeline": "current"})
    signal = cluster.postgres.data_directory / "recovery.signal"
    signal.touch()
    if RUN_AS:
        shutil.chown(signal, RUN_AS, RUN_AS)

    with server:
        server.wait_until_recovered()

        with server.connect() as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        assert "the database system is " in server.log_text, "it was asked too early"


def test_a_server_that_others_fill_is_waited_for(cluster: SourceCluster, monkeypatch):
    monkeypatch.setattr(restored_server, "_REFUSED_S", 0)
    few = {"max_connections": "1", "superuser_reserved_connections": "0", "max_wal_senders": "0"}
    with served(cluster, few) as server:
        server.wait_until_recovered()
        holder = connected(server)
        waiting = threading.Thread(target=server.wait_until_recovered, daemon=True)
        waiting.start()
        while "too many clients" not in server.log_text:
            time.sleep(0.05)
        time.sleep(0.5)
        assert waiting.is_alive()
        holder.close()
        waiting.join(60)
        assert not waiting.is_alive()


def connected(server: RestoredServer) -> psycopg.Connection:
    """As soon as the last connection's process is gone."""
    while True:
        try:
            return server.connect()
        except psycopg.OperationalError:
            time.sleep(0.05)
