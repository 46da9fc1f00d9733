"""The servers of docker-compose.yaml run for real, without containers: their commands, files and checks, in order."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.exceptions
import hvac
import psycopg
import pytest

from tests.infrastructure.compose.machine import Machine
from tests.support.clusters import open_directory

pytestmark = pytest.mark.case("TC-INF-04")


@pytest.fixture(scope="module")
def machine(_guarded: None) -> Iterator[Machine]:
    """Started in the order of depends_on, and provisioned; 15 s."""
    home = open_directory()
    machine = Machine(home)
    try:
        for server in machine.postgres.values():
            server.start()
        machine.start("vault")
        machine.run("provision-vault")
        machine.start_s3()
        machine.run("provision-data")
        machine.start("broker")
        yield machine
    finally:
        machine.stop()
        shutil.rmtree(home)


@pytest.fixture
def root(machine: Machine) -> hvac.Client:
    token = (machine.home / "volume-vault-admin" / "root-token").read_text()
    return hvac.Client(url=f"http://127.0.0.1:{machine.ports['vault']}", token=token)


@pytest.fixture
def backup(machine: Machine) -> hvac.Client:
    """As a worker logs in."""
    connection = json.loads(machine.environment("worker")["AIRFLOW_CONN_PV_BACKUP_VAULT"])
    client = hvac.Client(url=f"http://127.0.0.1:{machine.ports['vault']}")
    client.auth.approle.login(connection["login"], connection["password"])
    return client


def test_provisioning_again_changes_nothing(machine: Machine, root: hvac.Client) -> None:
    def state() -> list[Any]:
        keys = [root.secrets.transit.read_key(name)["data"] for name in ("pv-backup", "pv-backup-evidence")]
        secret_ids = root.auth.approle.list_secret_id_accessors("pv-backup")["data"]["keys"]
        token = root.auth.token.lookup(machine.secrets["SECRET_VAULT_BACKUP_TOKEN"])["data"]["accessor"]
        return [[key["keys"] for key in keys], secret_ids, token, root.token]

    before = state()
    machine.run("provision-vault")
    machine.run("provision-data")
    assert state() == before


def test_the_approle_has_the_backups_policy_and_no_other(backup: hvac.Client) -> None:
    assert backup.secrets.transit.encrypt_data("pv-backup", plaintext="AAAA")["data"]["ciphertext"].startswith("vault:")
    with pytest.raises(hvac.exceptions.Forbidden):
        backup.auth.token.lookup_self()
    with pytest.raises(hvac.exceptions.Forbidden):
        backup.secrets.transit.rotate_key("pv-backup")


@pytest.mark.parametrize(("connection", "is_superuser"), [("pv_backup_source", True), ("pv_backup_journal", False)])
def test_vault_serves_the_connections(backup: hvac.Client, connection: str, is_superuser: bool) -> None:
    answer = backup.secrets.kv.v2.read_secret_version(
        f"airflow/connections/{connection}", mount_point="kv", raise_on_deleted_version=True
    )
    fields = answer["data"]["data"]
    with psycopg.connect(
        host=fields["host"],
        port=fields["port"],
        user=fields["login"],
        password=fields["password"],
        dbname=fields["schema"],
    ) as database:
        found = database.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
        assert found == (is_superuser,)
        if not is_superuser:
            assert database.execute("SELECT count(*) FROM pv_backup.backup_executions").fetchone() == (0,)


def test_whoever_dumps_the_source_has_no_role_on_the_journals_server(machine: Machine) -> None:
    with psycopg.connect(machine.postgres["database"].dsn("journal")) as database:
        roles = dict(database.execute("SELECT rolname, rolsuper FROM pg_roles WHERE rolname !~ '^pg_'").fetchall())
    assert {role for role, is_superuser in roles.items() if is_superuser} == {"postgres"}
    assert "pv_backup_dump" not in roles


def test_postgres_lets_nobody_in_without_a_password(machine: Machine) -> None:
    port = machine.ports["source"]
    for database in ("postgres", "source"):
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname={database}", passfile="/dev/null")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"host=127.0.0.1 port={port} user=pv_backup_receivewal password=wrong replication=yes")


def receiver(machine: Machine) -> dict[str, Any]:
    """As pg_receivewal connects."""
    password = machine.secrets["SECRET_SOURCE_PV_BACKUP_RECEIVEWAL"]
    return {"host": "127.0.0.1", "port": machine.ports["source"], "user": "pv_backup_receivewal", "password": password}


def test_pg_receivewals_role_may_only_replicate(machine: Machine) -> None:
    """As production's pg_hba.conf has it; so nothing here may ask a database in its name."""
    for database in ("postgres", "source"):
        with pytest.raises(psycopg.OperationalError, match="rejects connection"):
            psycopg.connect(**receiver(machine), dbname=database)


def s3_client(machine: Machine, service: str) -> Any:
    """With the key that a service holds."""
    connection = json.loads(machine.environment(service)["AIRFLOW_CONN_PV_BACKUP_S3"])
    return boto3.client(
        "s3",
        **connection["extra"],
        aws_access_key_id=connection["login"],
        aws_secret_access_key=connection["password"],
    )


def test_the_backup_user_can_do_no_more_than_in_production(machine: Machine) -> None:
    client = s3_client(machine, "worker")
    settings = machine.environment("worker")
    bucket = settings["PV_BACKUP_BUCKET"]
    client.put_object(
        Bucket=bucket,
        Key="probe",
        Body=b"x",
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=settings["PV_BACKUP_KMS_KEY_ID"],
    )
    assert client.get_object(Bucket=bucket, Key="probe")["ServerSideEncryption"] == "aws:kms"
    for refused in (
        lambda: client.delete_object(Bucket=bucket, Key="probe"),
        lambda: client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
        lambda: client.create_bucket(Bucket="another-bucket"),
    ):
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            refused()


def test_the_triggerer_looks_and_never_writes(machine: Machine) -> None:
    bucket = machine.environment("worker")["PV_BACKUP_BUCKET"]
    s3_client(machine, "worker").put_object(Bucket=bucket, Key="looked-at", Body=b"x")
    client = s3_client(machine, "triggerer")
    assert client.head_object(Bucket=bucket, Key="looked-at")["ContentLength"] == 1
    with pytest.raises(botocore.exceptions.ClientError, match="Not Found"):
        client.head_object(Bucket=bucket, Key="absent")
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        client.put_object(Bucket=bucket, Key="forged", Body=b"x")


def test_a_restarted_vault_opens_by_itself(machine: Machine, backup: hvac.Client) -> None:
    machine.daemons["vault"].stop()
    assert machine.check("vault").returncode != 0
    machine.start("vault")
    assert backup.sys.read_seal_status()["sealed"] is False


def test_pg_receivewal_streams_into_the_wal_workers_volume(machine: Machine) -> None:
    daemon = machine.start("receivewal")
    process = daemon.process()
    assert process is not None
    assert machine.secrets["SECRET_SOURCE_PV_BACKUP_RECEIVEWAL"] not in " ".join(process.cmdline())
    volume = machine.home / "volume-wal"
    assert machine.environment("wal-worker")["PV_BACKUP_WAL_DIRECTORY"] == str(volume)
    assert list(volume.glob("*.partial"))

    daemon.stop()
    with psycopg.connect(machine.postgres["source"].dsn("source"), autocommit=True) as source:
        source.execute("CHECKPOINT")  # written while nobody receives
        check = machine.check("receivewal")
        assert check.returncode != 0
        assert "slot pv_backup stands at" in check.stderr
        (segment,) = volume.glob("*.partial")
        cut_short = segment.with_name("0000000100000000000000FF.partial")
        cut_short.write_bytes(bytes(8192))
        machine.start("receivewal")  # and caught up
    assert list(volume.glob("*.partial")) == [segment]

    machine.daemons["receivewal"].stop()
    with psycopg.connect(**receiver(machine), replication="yes", autocommit=True) as replication:
        replication.execute("DROP_REPLICATION_SLOT pv_backup WAIT")  # till the server knows that nobody is connected
    check = machine.check("receivewal")
    assert check.returncode != 0
    assert "no replication slot pv_backup" in check.stderr


def test_the_broker_wants_its_password(machine: Machine) -> None:
    assert machine.check("broker").returncode == 0
    secret = machine.secrets["SECRET_REDIS"]
    machine.secrets["SECRET_REDIS"] = "wrong"
    try:
        assert machine.check("broker").returncode != 0
    finally:
        machine.secrets["SECRET_REDIS"] = secret
    process = machine.daemons["broker"].process()
    assert process is not None
    assert secret not in " ".join(process.cmdline())


def test_a_worker_that_does_not_answer_is_unhealthy(machine: Machine) -> None:
    """The check reaches the broker and asks; nobody serves here."""
    check = machine.check("worker")
    assert check.returncode != 0
    assert "No nodes replied" in check.stdout + check.stderr


@pytest.mark.soak  # 25 s of processor; what it stands on is tested above, and Celery's workers in tests/system
def test_a_worker_backs_up_and_the_tool_without_airflow_reads_it_back(machine: Machine) -> None:
    """Everything that the worker is told, by its own environment: Vault's connections, the AppRole, bucket and keys."""
    machine.run("airflow-init")
    machine.run("worker", "airflow", "dags", "test", "pv_backup_daily_dump")
    verified = machine.run("pv_backup", sys.executable, "-m", "pv_backup", "verify", "--all")
    assert "backup_" in verified


def test_nothing_writes_beside_volumes_and_memory(machine: Machine) -> None:
    """The containers' own files are read-only: after all this AIRFLOW_HOME has what the image has, and its volume."""
    in_the_image = {"airflow.cfg", "dags", "deploy", "dev", "include", "plugins", "terraform"}
    assert {path.name for path in machine.airflow_home.iterdir()} == in_the_image | {"logs"}
