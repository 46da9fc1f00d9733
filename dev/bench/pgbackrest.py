"""pgBackRest as Debian packages it, with an encrypted repository in the benchmark's S3 server.

It deviates from an operator's setup in two points only, both in its favour: the certificate is not verified, and
`archive-check` is off, so that a backup need not wait until its WAL is archived (nor contain it).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from dev.bench.world import World
from dev.provisioning import keys
from dev.servers.postgres import SUPERUSER
from dev.servers.seaweedfs import REGION

_STANZA = "bench"
# Version 2.45 takes any negative level. With this one a base backup is stored in as many bytes as by barman with lz4.
FASTEST = {"compress-level": "-5"}
COMMAND = ["pgbackrest", "--no-config", f"--stanza={_STANZA}"]


class PgBackRest:
    """One repository, with a stanza for the source.

    :param home: for its locks and its spool; made.
    :param data_directory: the cluster's, or what archive-push needs of one.
    :param options: as its manual names them, beside those that every contender must have alike.
    """

    def __init__(
        self, *, world: World, home: Path, bucket: str, data_directory: Path, options: Mapping[str, str]
    ) -> None:
        fixed = {
            "repo1-type": "s3",
            "repo1-path": "/repository",
            "repo1-s3-bucket": bucket,
            "repo1-s3-endpoint": "localhost",
            "repo1-storage-host": "127.0.0.1",
            "repo1-storage-port": str(world.s3.tls_port),
            "repo1-storage-verify-tls": "n",
            "repo1-s3-region": REGION,
            "repo1-s3-uri-style": "path",
            "repo1-s3-key": world.admin.access_key,
            "repo1-s3-key-secret": world.admin.secret_key,
            "repo1-s3-kms-key-id": keys.SSE_KEY,
            "repo1-cipher-type": "aes-256-cbc",
            "repo1-cipher-pass": world.passphrase,
            "repo1-retention-full": "2",
            "compress-type": "zst",
            "archive-check": "n",
            "log-level-file": "off",
            "lock-path": str(home / "lock"),
            "spool-path": str(home / "spool"),
            "pg1-path": str(data_directory),
            "pg1-port": str(world.source.postgres.port),
            "pg1-user": SUPERUSER,
        }
        for directory in ("lock", "spool"):
            (home / directory).mkdir(parents=True)
        # By environment: pgBackRest hands it on to the processes that it starts, the process list does not show it.
        variables = {
            f"PGBACKREST_{name.upper().replace('-', '_')}": value for name, value in {**fixed, **options}.items()
        }
        self.environment = world.environment(bucket, tls=True) | world.as_superuser() | variables

    def create_stanza(self) -> None:
        """Prepare the repository, from the cluster's control file alone; not measured."""
        subprocess.run([*COMMAND, "--no-online", "stanza-create"], env=self.environment, check=True)
