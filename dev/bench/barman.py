"""barman-cloud from PyPI, in a virtual environment of its own: it is nothing that the project needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dev.bench.world import World
from dev.provisioning import keys

_REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
_SERVER = "bench"


class Barman:
    """The newest barman-cloud that runs on a Python, with the project's versions of what both need (boto3 …).

    :param home: where the virtual environment goes.
    :ivar version: of barman.
    """

    def __init__(self, home: Path) -> None:
        # Since 3.20 barman wants Python 3.12, which Debian 12 has not.
        python = os.environ.get("BARMAN_PYTHON", sys.executable)
        self._bin = home / "barman" / "bin"
        overrides = home / "overrides.txt"
        # psycopg2 would be compiled here; psycopg2-binary is the same, compiled already.
        overrides.write_text('psycopg2; python_version < "3"\n')
        uv = Path(sys.executable).with_name("uv")
        install: list[str | Path] = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            self._bin / "python",
            "--override",
            overrides,
        ]
        install += ["--constraint", _REQUIREMENTS, "barman[cloud,lz4,snappy,zstandard]", "psycopg2-binary"]
        subprocess.run([uv, "venv", "--quiet", "--python", python, home / "barman"], check=True)
        subprocess.run(install, check=True)
        answer = subprocess.run([self._bin / "barman-cloud-backup", "--version"], check=True, capture_output=True)
        self.version = answer.stdout.decode().split()[-1]

    def backup(self, world: World, bucket: str, *, compression: str) -> list[str | Path]:
        """A base backup of the source; it reads the data directory and stores no WAL."""
        options = ["--immediate-checkpoint", "--jobs=2", f"--{compression}"]
        return [self._bin / "barman-cloud-backup", *options, *_destination(world, bucket)]

    def archive(self, world: World, bucket: str, path: str, *, compression: str) -> list[str | Path]:
        """One WAL file, as `archive_command` has it archived."""
        return [self._bin / "barman-cloud-wal-archive", f"--{compression}", *_destination(world, bucket), path]


def _destination(world: World, bucket: str) -> list[str]:
    endpoint = world.environment(bucket, tls=True)["AWS_ENDPOINT_URL_S3"]
    encryption = ["--encryption=aws:kms", f"--sse-kms-key-id={keys.SSE_KEY}"]
    return [f"--endpoint-url={endpoint}", "--addressing-style=path", *encryption, f"s3://{bucket}", _SERVER]
