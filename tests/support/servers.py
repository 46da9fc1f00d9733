"""What a test gets of the stack: a database, a bucket, an environment of its own."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from dev import airflow_env
from dev.environment import migrate_airflow
from dev.ports import free_ports
from dev.provisioning import buckets, databases, keys
from dev.provisioning.databases import AIRFLOW, DUMP, OWNER, SERVICE, password_of
from dev.stack import Stack
from tests.support.places import new_directory

BUCKET_PATTERN = "pv-backup-test-*"


@dataclass(frozen=True, kw_only=True)
class JournalDatabase:
    """A migrated journal database; libpq URIs of its three kinds of user."""

    superuser_dsn: str
    owner_dsn: str
    service_dsn: str


@dataclass(frozen=True, kw_only=True)
class SourceDatabase:
    """An empty database to back up; libpq URIs of the superuser and of the role that dumps."""

    name: str
    superuser_dsn: str
    dump_dsn: str
    wal_directory: None = None


class Source(Protocol):
    """What a backup reads: a database of the shared server, or a cluster with pg_receivewal on it."""

    @property
    def superuser_dsn(self) -> str: ...

    @property
    def dump_dsn(self) -> str: ...

    @property
    def wal_directory(self) -> Path | None: ...


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A versioned bucket; boto3 clients of the administrator and of ``backup_user``, neither of which retries."""

    name: str
    admin: Any
    user: Any


class TestStack(Stack):
    """A stack in a temporary directory, which a running guard removes even when pytest is killed."""

    __test__ = False  # not a class of tests

    def __init__(self) -> None:
        super().__init__(home=new_directory("pv-backup-test-"), bucket_pattern=BUCKET_PATTERN, durable=False)

    def restore(self) -> None:
        """Start and unseal what a test stopped, killed or sealed; a few milliseconds when nothing is amiss."""
        self.postgres.start()
        self.vault.start()
        self.s3.start()

    def discard(self) -> None:
        """End the servers as fast as possible and leave nothing behind."""
        self.s3.kill()
        self.vault.stop()
        self.postgres.remove()
        shutil.rmtree(self.home)

    def new_journal(self) -> JournalDatabase:
        """Clone the migrated template: 0.1 s, where migrating takes 2."""
        name = _unique("journal")
        databases.ensure_database(self.postgres, name, template=self._journal_template())
        databases.grant_journal(self.postgres, name)
        return JournalDatabase(
            superuser_dsn=self.postgres.dsn(name),
            owner_dsn=self._dsn(name, OWNER),
            service_dsn=self._dsn(name, SERVICE),
        )

    def new_source(self) -> SourceDatabase:
        """Make an empty database."""
        name = _unique("source")
        databases.ensure_database(self.postgres, name)
        return SourceDatabase(name=name, superuser_dsn=self.postgres.dsn(name), dump_dsn=self._dsn(name, DUMP))

    def new_bucket(self) -> Bucket:
        """Make a versioned bucket that ``backup_user`` may use."""
        name = _unique(BUCKET_PATTERN.removesuffix("-*")).replace("_", "-")
        buckets.ensure_bucket(self.s3, name)
        return Bucket(name=name, admin=self.s3.client(), user=self.s3.client(self.backup_user))

    def airflow_environment(
        self, *, home: Path, source: Source, journal: JournalDatabase, bucket: Bucket
    ) -> dict[str, str]:
        """The environment of an Airflow of its own, whose metadata database is cloned from a migrated template."""
        name = _unique("airflow")
        databases.ensure_database(self.postgres, name, owner=AIRFLOW, template=self._airflow_template())
        backup = airflow_env.backup_settings(
            source_dsn=source.dump_dsn,
            journal_dsn=journal.service_dsn,
            vault_address=self.vault.address,
            vault_token=self.backup_token,
            s3_endpoint=self.s3.endpoint,
            s3_key=self.backup_user,
            bucket=bucket.name,
            kms_key_id=keys.SSE_KEY,
            transit_key=keys.TRANSIT_KEY,
            wal_directory=source.wal_directory,
        )
        return {**os.environ, **self._airflow_settings(home, name), **backup}

    @cache  # noqa: B019 - one stack a session
    def _journal_template(self) -> str:
        name = "journal_template"
        databases.ensure_database(self.postgres, name)
        databases.grant_journal(self.postgres, name)
        databases.migrate_journal(self._dsn(name, OWNER))
        return name

    @cache  # noqa: B019 - one stack a session
    def _airflow_template(self) -> str:
        name = "airflow_template"
        databases.ensure_database(self.postgres, name, owner=AIRFLOW)
        migrate_airflow(self._airflow_settings(self.home / "airflow-template", name))
        return name

    def _airflow_settings(self, home: Path, database: str) -> dict[str, str]:
        return airflow_env.airflow_settings(
            home=home,
            metadata_dsn=airflow_env.sqlalchemy_url(self._dsn(database, AIRFLOW)),
            credentials=self.credentials,
            ports=free_ports(airflow_env.API_PORT_NAMES),
        )

    def _dsn(self, database: str, role: str) -> str:
        return self.postgres.dsn(database, user=role, password=password_of(self.credentials, role))


def _unique(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:12]}"
