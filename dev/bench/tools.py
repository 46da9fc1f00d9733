"""The programs of others that the contenders are made of."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Mapping

# Debian's, as a user of this machine would install it; `.venv/bin` has another one.
_AWS = "/usr/bin/aws"
# For each part of the benchmark: the programs, and the packages of Debian that bring them.
_DUMP = {"age": "age", "zstd": "zstd", _AWS: "awscli", "openssl": "openssl"}
_NEEDED: Mapping[str, Mapping[str, str]] = {
    "dump": _DUMP,
    "basebackup": _DUMP | {"pgbackrest": "pgbackrest"},
    "restore": {"openssl": "openssl", "pgbackrest": "pgbackrest"},
    "wal": {"zstd": "zstd", "openssl": "openssl", "pgbackrest": "pgbackrest"},
}


def require(parts: Collection[str]) -> None:
    """End at once, with the command that installs what is missing."""
    needed = {program: package for part in parts for program, package in _NEEDED[part].items()}
    if missing := sorted(package for program, package in needed.items() if shutil.which(program) is None):
        sys.exit(f"the benchmark needs more of Debian's packages: apt-get install {' '.join(missing)}")


def upload_script(env: Mapping[str, str]) -> str:
    """Standard input to an object, by Debian's AWS CLI, with SSE-KMS as ours."""
    sse = f"--sse aws:kms --sse-kms-key-id {env['PV_BACKUP_KMS_KEY_ID']}"
    # Debian's version does not know AWS_ENDPOINT_URL_S3 yet.
    endpoint = f"--endpoint-url {env['AWS_ENDPOINT_URL_S3']}"
    return f"{_AWS} {endpoint} s3 cp --only-show-errors {sse} - s3://{env['PV_BACKUP_BUCKET']}/scripted"
