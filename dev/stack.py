"""The servers together: the same stack for the tests and, with a source beside it, for ``make up``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dev.credentials import Credentials
from dev.ports import remembered_ports
from dev.provisioning import buckets, databases, keys
from dev.servers import seaweedfs
from dev.servers.openbao import OpenBao
from dev.servers.postgres import Postgres
from dev.servers.seaweedfs import AccessKey, KmsProvider, SeaweedFs
from dev.servers.source import SourceServer

PORT_NAMES = ("postgres", "openbao", "openbao-cluster", *seaweedfs.PORT_NAMES)


class Stack:
    """PostgreSQL (for the journal and Airflow), OpenBao and SeaweedFS with all that they need to serve a backup.

    The role that dumps is there too, so that a test's source can be just another database of this PostgreSQL.

    :param home: directory of the stack; all its state lies there.
    :param bucket_pattern: the bucket that the backup user may use, ``*`` allowed (tests make a bucket each).
    :param durable: False trades crash safety for speed; for tests only.
    """

    def __init__(self, *, home: Path, bucket_pattern: str, durable: bool) -> None:
        home.mkdir(parents=True, exist_ok=True)
        # PostgreSQL's user must be able to pass through, not to look around.
        home.chmod(0o711)
        self.home = home
        self.ports = remembered_ports(home / "ports.json", PORT_NAMES)
        self.credentials = Credentials(home / "secrets")
        self.bucket_pattern = bucket_pattern
        self.postgres = Postgres(
            home=home / "postgres",
            port=self.ports["postgres"],
            password=self.credentials.get("postgres_superuser"),
            durable=durable,
        )
        self.vault = OpenBao(
            home=home / "openbao",
            port=self.ports["openbao"],
            cluster_port=self.ports["openbao-cluster"],
            keys_file=self.credentials.directory / "openbao.json",
        )
        self.s3 = SeaweedFs(
            home=home / "seaweedfs",
            ports=self.ports,
            admin=AccessKey(
                access_key=self.credentials.get("s3_admin_access_key", nbytes=15),
                secret_key=self.credentials.get("s3_admin_secret_key", nbytes=30),
            ),
            kms=KmsProvider(address=self.vault.address, token=self.credentials.get("vault_sse_token")),
        )

    @property
    def backup_token(self) -> str:
        """The Vault token of the backup: encrypt and decrypt with one key, nothing else."""
        return self.credentials.get("vault_backup_token")

    @property
    def backup_user(self) -> AccessKey:
        """The S3 credentials of ``backup_user``, which SeaweedFS drew when the user was made."""
        return buckets.backup_user(self.credentials)

    def start(self) -> list[str]:
        """Start what does not run yet, all at once, and bring roles, keys, policies and users into being.

        :returns: the names of the servers that had to be started.
        :raises PortTakenError, ServerFailedError: naming the server; the others stay up.
        """
        with ThreadPoolExecutor(max_workers=2) as pool:
            relational = pool.submit(self._start_postgres)
            # SeaweedFS asks OpenBao for its key, so these two go one after the other.
            storage = pool.submit(self._start_vault_and_s3)
        return relational.result() + storage.result()

    def stop(self) -> list[str]:
        """Stop what runs; the data stays.

        :returns: the names of the servers that ran.
        """
        servers: dict[str, SeaweedFs | OpenBao | Postgres] = {
            "SeaweedFS": self.s3,
            "OpenBao": self.vault,
            "PostgreSQL": self.postgres,
        }
        running = {name: server for name, server in servers.items() if server.is_running()}
        with ThreadPoolExecutor() as pool:
            for stopping in [pool.submit(server.stop) for server in running.values()]:
                stopping.result()
        return list(running)

    def _start_postgres(self) -> list[str]:
        started = self.postgres.start()
        databases.ensure_roles(self.postgres, self.credentials)
        return ["PostgreSQL"] if started else []

    def _start_vault_and_s3(self) -> list[str]:
        started = ["OpenBao"] if self.vault.start() else []
        keys.ensure_keys_and_tokens(self.vault, self.credentials)
        started += ["SeaweedFS"] if self.s3.start() else []
        buckets.ensure_backup_user(self.s3, self.credentials, bucket_pattern=self.bucket_pattern)
        return started


class DevelopmentStack(Stack):
    """The same, durable, and a source with pg_receivewal on a PostgreSQL of its own.

    The journal must survive the server that it speaks of, and each of its rows would be WAL to be shipped.
    """

    def __init__(self, *, home: Path, bucket_pattern: str) -> None:
        super().__init__(home=home, bucket_pattern=bucket_pattern, durable=True)
        self.source = SourceServer(
            home=home / "source",
            port=remembered_ports(home / "ports.json", ["source"])["source"],
            password=self.credentials.get("source_superuser"),
            dump_password=self.credentials.get(f"source_{databases.DUMP}"),
            receiver_password=self.credentials.get(f"source_{databases.RECEIVER}"),
            durable=True,
        )

    def start(self) -> list[str]:
        """Start what does not run yet, the source at the same time as the rest.

        :returns: the names of the programs that had to be started.
        :raises PortTakenError, ServerFailedError: naming the server; the others stay up.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            source = pool.submit(self.source.start)
            return super().start() + source.result()

    def stop(self) -> list[str]:
        """Stop what runs; the data and the WAL files stay.

        :returns: the names of the programs that ran.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            source = pool.submit(self.source.stop)
            return super().stop() + source.result()
