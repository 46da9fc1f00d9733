"""The servers of one benchmark, and the environment in which every contender finds the same ones."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from dev.airflow_env import standalone_settings
from dev.bench.tls import Certificate, TlsSeaweedFs
from dev.ports import free_ports
from dev.provisioning import buckets, databases, keys
from dev.servers.postgres import SUPERUSER
from dev.servers.seaweedfs import AccessKey, KmsProvider
from dev.servers.source import SourceServer
from dev.stack import Stack

DATABASE, JOURNAL = "bench", "bench_journal"
_BUCKETS = "pv-backup-bench-"


class World:
    """A stack, and a source server of its own, so that the journal's CPU is not taken for the source's.

    :param home: an empty directory that PostgreSQL's user may pass through.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.certificate = Certificate.drawn(home)
        self._stack = stack = Stack(home=home / "stack", bucket_pattern=f"{_BUCKETS}*", durable=True)
        self.s3 = stack.s3 = TlsSeaweedFs(
            home=stack.s3.home,
            ports=stack.ports,
            admin=stack.s3.admin,
            kms=KmsProvider(address=stack.vault.address, token=stack.credentials.get("vault_sse_token")),
            tls_port=free_ports(["https"])["https"],
            certificate=self.certificate,
        )
        self._source_port = free_ports(["postgres"])["postgres"]
        self.source = SourceServer(
            home=home / "source",
            port=self._source_port,
            password=stack.credentials.get("bench_superuser"),
            dump_password=stack.credentials.get("bench_dump"),
            receiver_password=stack.credentials.get("bench_receiver"),
            durable=True,
        )
        self.servers: dict[str, psutil.Process] = {}

    @property
    def passphrase(self) -> str:
        """For contenders that encrypt with one."""
        return self._stack.credentials.get("bench_passphrase")

    def as_superuser(self) -> dict[str, str]:
        """What a contender needs beside :meth:`environment` that connects as the source's own superuser."""
        return {"PGUSER": SUPERUSER, "PGPASSWORD": self._stack.credentials.get("bench_superuser")}

    @property
    def admin(self) -> AccessKey:
        """For contenders that must delete: pgBackRest replaces its files that way, `backup_user` may not."""
        return self.s3.admin

    def start(self) -> None:
        """Start everything but pg_receivewal, and migrate the journal."""
        (self.home / "source").mkdir()
        self._stack.start()
        self.source.start(receiving=False)
        databases.ensure_database(self.source.postgres, DATABASE)
        journal_server = self._stack.postgres
        databases.ensure_database(journal_server, JOURNAL)
        databases.grant_journal(journal_server, JOURNAL)
        databases.migrate_journal(self._journal_dsn(databases.OWNER))
        self.servers = self._listening(
            {
                "source": self._source_port,
                "S3": self._stack.ports["s3.port"],
                "Vault": self._stack.ports["openbao"],
            }
        )

    def stop(self) -> None:
        """Stop everything; the clusters are removed, the rest lies below `home`."""
        self.source.stop()
        self._stack.stop()
        self.source.postgres.remove()
        self._stack.postgres.remove()

    def environment(self, bucket: str, *, tls: bool) -> dict[str, str]:
        """What every contender needs, plain tools and our own processes.

        :param tls: how S3 is spoken to.
        """
        stack = self._stack
        endpoint = f"https://127.0.0.1:{self.s3.tls_port}" if tls else self.s3.endpoint
        return {
            **_own_environment(),
            **standalone_settings(
                vault_address=stack.vault.address,
                vault_token=stack.backup_token,
                s3_endpoint=endpoint,
                s3_key=stack.backup_user,
            ),
            "AWS_CA_BUNDLE": str(self.certificate.certificate),
            "PV_BACKUP_BUCKET": bucket,
            "PV_BACKUP_KMS_KEY_ID": keys.SSE_KEY,
            "PV_BACKUP_TRANSIT_KEY": keys.TRANSIT_KEY,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self._source_port),
            "PGDATABASE": DATABASE,
            "PGUSER": databases.DUMP,
            "PGPASSWORD": stack.credentials.get("bench_dump"),
            "BENCH_SOURCE_DSN": self.source.dsn_of_dump(DATABASE),
            "BENCH_JOURNAL_DSN": self._journal_dsn(databases.SERVICE),
            "BENCH_SERVERS": json.dumps({name: process.pid for name, process in self.servers.items()}),
        }

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """A new bucket for one run of one contender, so that none meets what another one stored."""
        name = f"{_BUCKETS}{uuid.uuid4().hex[:12]}"
        buckets.ensure_bucket(self.s3, name)
        s3 = self.s3.client()
        # The first object of a bucket waits 0.2 s for SeaweedFS to make its volumes, and pgBackRest alone writes some
        # before it is measured.
        s3.put_object(Bucket=name, Key="first", Body=b"")
        s3.delete_object(Bucket=name, Key="first")
        try:
            yield name
        finally:
            s3.delete_bucket(Bucket=name)

    def stored_bytes(self, bucket: str) -> int:
        """Bytes of all that is in the bucket."""
        pages: Any = self.s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sum(found["Size"] for page in pages for found in page.get("Contents", []))

    def _journal_dsn(self, role: str) -> str:
        password = databases.password_of(self._stack.credentials, role)
        return self._stack.postgres.dsn(JOURNAL, user=role, password=password)

    @staticmethod
    def _listening(ports: dict[str, int]) -> dict[str, psutil.Process]:
        listening = {
            connection.laddr.port: connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.pid
        }
        return {name: psutil.Process(listening[port]) for name, port in ports.items()}


def _own_environment() -> dict[str, str]:
    """Ours without PYTHONPATH: barman has a Python of its own."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def age_recipient() -> str:
    """The public half of a key that nobody keeps: what is encrypted to it is never opened."""
    identity = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    return identity.split("public key: ")[1].splitlines()[0]
