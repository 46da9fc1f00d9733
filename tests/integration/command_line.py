"""`python -m pv_backup` as somebody runs it who has the bucket and the key, and no Airflow."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from dev.airflow_env import ROOT, standalone_settings
from dev.provisioning.keys import SSE_KEY, TRANSIT_KEY
from tests.integration.backup_world import BackupWorld

_PATIENCE_S = 120

_SITECUSTOMIZE = """
import sys

class NotInstalled:
    blocked = frozenset({blocked})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, NotInstalled())
"""


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
            timeout=_PATIENCE_S,
            check=False,
        )

    def start(self, *arguments: str | Path, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """The same without waiting; its output is nobody's, unless the caller wants what it says."""
        return subprocess.Popen(
            [sys.executable, "-m", "pv_backup", *map(str, arguments)],
            env=self.environment,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )

    def without(self, folder: Path, blocked: Collection[str]) -> None:
        """From now on, run by a Python on which these modules are not installed.

        :param folder: empty; Python imports `sitecustomize` from it before anything else of ours.
        """
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(blocked=sorted(blocked)))
        self.environment["PYTHONPATH"] = os.pathsep.join([str(folder), self.environment["PYTHONPATH"]])

    def before_a_terminal(self, *arguments: str) -> tuple[str, bytes]:
        """What stands on a terminal that is its standard error, and its standard output."""
        ours, theirs = pty.openpty()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pv_backup", *arguments],
                env=self.environment | {"TERM": "xterm", "COLUMNS": "120"},
                cwd="/",
                stdout=output,
                stderr=theirs,
            )
            os.close(theirs)
            seen = b""
            # Reading a terminal that nobody writes to any more is an error on Linux.
            with suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:
                while some := terminal.read(65536):
                    seen += some
            process.wait(60)
            output.seek(0)
            return seen.decode(), output.read()
