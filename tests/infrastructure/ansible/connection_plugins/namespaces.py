"""How Ansible gets into a machine that boot.py made; ansible-core has no connection of its own that can."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: namespaces
short_description: Enter the namespaces of a process
description: Runs commands as root, with the process's root directory as its own.
options:
  pid:
    description: The process.
    type: int
    vars: [{name: ansible_machine_pid}]
"""


class Connection(ConnectionBase):
    """Commands by nsenter, files by the process's root directory."""

    transport = "namespaces"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        # Not with the environment of whoever runs the tests: it names files that the machine does not have.
        enter = ["nsenter", f"--target={self.get_option('pid')}", "--all", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run([*enter, path, "/bin/sh", "-c", cmd], input=in_data or b"", capture_output=True)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        shutil.copyfile(in_path, self._inside(out_path))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        shutil.copyfile(self._inside(in_path), out_path)

    def close(self) -> None:
        self._connected = False

    def _inside(self, path: str) -> Path:
        return Path(f"/proc/{self.get_option('pid')}/root{path}")
