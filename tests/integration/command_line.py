"""`python -m pv_backup` as somebody runs it who has the bucket and the key, and no Airflow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dev.airflow_env import ROOT, standalone_settings
from dev.provisioning.keys import SSE_KEY, TRANSIT_KEY
from tests.integration.backup_world import BackupWorld


class CommandLine:
    """Runs one command in a process of its own, with nothing but the documented environment.

    :ivar environment: may be changed before a call.
    """

    def __init__(self, world: BackupWorld) -> None:
        stack = world.stack
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "plugins"),
            "PV_BACKUP_BUCKET": world.bucket.name,
            "PV_BACKUP_KMS_KEY_ID": SSE_KEY,
            "PV_BACKUP_TRANSIT_KEY": TRANSIT_KEY,
            **standalone_settings(
                vault_address=stack.vault.address,
                vault_token=stack.backup_token,
                s3_endpoint=stack.s3.endpoint,
                s3_key=stack.backup_user,
            ),
        }

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "pv_backup", *map(str, arguments)],
            env=self.environment,
            cwd="/",
            capture_output=True,
            timeout=60,
            check=False,
        )
