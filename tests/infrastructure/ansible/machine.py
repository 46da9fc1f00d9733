"""A throw-away Debian 12 that really runs: its own systemd, its own packages, our network; in memory, in 30 s."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dev import guard
from dev.airflow_env import ROOT
from tests.infrastructure.ansible.boot import cgroup_root

ANSIBLE = ROOT / "ansible"
TOOLS = ROOT / ".venv-tools" / "bin"
_HERE = Path(__file__).parent


class NoMirror(Exception):
    """Debian's packages cannot be had."""


@cache
def why_not() -> str:
    """What is missing to make a machine here; nothing if it can be made."""
    if os.geteuid() != 0:
        return "booting a machine needs root"
    if missing := [tool for tool in ("mmdebstrap", "unshare", "nsenter", "setpriv") if shutil.which(tool) is None]:
        return f"{missing[0]} is not installed"
    if cgroup_root() is None:
        return "this kernel has no cgroups of version 2 mounted"
    if subprocess.run(["unshare", "--mount", "--pid", "--cgroup", "--fork", "true"], capture_output=True).returncode:
        return "this machine's root may not make namespaces"
    return ""


@dataclass
class Play:
    """One run of the playbook."""

    status: int
    said: str

    @property
    def changed(self) -> list[str]:
        """The tasks that changed something."""
        tasks = re.split(r"^(?:TASK|RUNNING HANDLER) \[(.*?)\] \**$", self.said, flags=re.MULTILINE)[1:]
        names, outputs = tasks[::2], tasks[1::2]
        return [name for name, output in zip(names, outputs, strict=True) if re.search(r"^changed:", output, re.M)]


class Machine:
    """One machine, from its making to its end."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="pv-backup-machine-"))
        guard.watch_path(self.home)
        self.root = self.home / "root"
        self.root.mkdir()
        self._holder: subprocess.Popen[str] | None = None
        self.pid = 0

    def boot(self) -> None:
        """Make it, start it, and wait until all its services run.

        :raises NoMirror: without a network.
        """
        console = self.home / "console"
        self._holder = subprocess.Popen(
            [sys.executable, "-m", "tests.infrastructure.ansible.boot", self.root, console],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        announced = self._holder.stdout.readline().strip()
        if not announced:
            said = console.read_text(errors="replace")[-3000:]
            if re.search(r"Failed to fetch|Could not resolve|Could not connect", said):
                raise NoMirror(f"Debian's packages cannot be had: {said[-500:]}")
            raise AssertionError(f"it did not boot:\n{said}")
        self.pid = int(announced)
        state = self.run("for i in $(seq 300); do systemctl is-system-running --wait && break; sleep 0.1; done").stdout
        assert state.split()[-1:] == ["running"], f"{state}\n{self.run('systemctl --failed').stdout}"

    def discard(self) -> None:
        """Take it away."""
        if self._holder is not None:
            self._holder.communicate()
        shutil.rmtree(self.home)

    def run(self, script: str, *, check: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a shell's script as root in it, with nothing of our environment."""
        variables = {"PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", **environment}
        assignments = [f"{name}={value}" for name, value in variables.items()]
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", "--all", "env", "-i", *assignments, "/bin/sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done

    def play(self, variables: dict[str, Any], *options: str, playbook: Path = ANSIBLE / "site.yml") -> Play:
        """Run a playbook with the example's inventory on it; it is wal1.example.com."""
        given = self.home / "variables.json"
        way_in = {"ansible_connection": "namespaces", "ansible_machine_pid": self.pid}
        # Told, because to find it costs a second each time.
        python = {"ansible_python_interpreter": "/usr/bin/python3"}
        given.write_text(json.dumps(variables | way_in | python))
        return run_playbook(self.home / "ansible", f"--extra-vars=@{given}", "--user=root", *options, playbook=playbook)


def run_playbook(home: Path, *options: str, playbook: Path = ANSIBLE / "site.yml") -> Play:
    """Run it with the example's inventory; what Ansible keeps goes to `home`."""
    done = subprocess.run(
        [TOOLS / "ansible-playbook", "--inventory", ANSIBLE / "inventory.example.yml", playbook, *options],
        env={
            "PATH": f"{TOOLS}:{os.environ['PATH']}",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_HOME": str(home),
            "ANSIBLE_CONNECTION_PLUGINS": str(_HERE / "connection_plugins"),
            "ANSIBLE_ROLES_PATH": str(ANSIBLE / "roles"),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_NOCOLOR": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Play(done.returncode, done.stdout + done.stderr)
