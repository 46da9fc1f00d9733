"""A host for the commands that a page has root type: its own /etc, /var/lib and /opt/pv-backup, and ours is untouched.

Whatever they make lies in a directory of the test's, which a mount namespace puts in place of this machine's; programs
and network are this machine's. What wants packages, or a systemd that runs, is for the machine of Ansible's tests.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from dev import guard
from dev.airflow_env import ROOT
from dev.servers.postgres import is_open_to_others

CLONE: Final = Path("/opt/pv-backup")
_PATIENCE_S: Final = 300
_PROGRAMS: Final = ("setpriv", "systemd-analyze", "systemd-tmpfiles")
# Made by the page, on a host that has neither; this machine may.
_USERS: Final = ("airflow", "pv_backup")
_OF_USERS: Final = ("passwd", "shadow", "group", "gshadow")
# Directories of the host, and what in its home stands in their place.
_PLACES: Final = {"/etc": "etc", "/var/lib": "var-lib", "/opt": "opt"}
# What a login shell of root's has in Debian.
_ROOTS: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}


@cache
def why_not() -> str:
    """What is missing to have a host here; nothing if one can be had."""
    if os.geteuid() != 0:
        return "a host of one's own needs root"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "this machine's root may not make namespaces"
    if not is_open_to_others(ROOT):
        return "the host's users can't reach the clone, which lies in a closed directory"
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        return f"this machine has no {', '.join(missing)}"
    return ""


@dataclass(frozen=True, kw_only=True)
class Host:
    """One host, until its end: a copy of /etc holds passwords and keys, which must not outlive the test.

    :ivar home: a directory in which all lies that is its own.
    """

    home: Path

    @classmethod
    def made(cls, home: Path, *, etc: Path = Path("/etc")) -> Host:
        """With this machine's /etc, less the page's users, and nothing in the other two but the clone's place.

        :param home: where nothing is yet.
        """
        home.mkdir(mode=0o700)
        guard.watch_path(home)
        subprocess.run(["cp", "--archive", etc, home / "etc"], check=True)
        remove = f"/^({'|'.join(_USERS)}):/d"
        files = [home / "etc" / name for name in _OF_USERS]
        subprocess.run(["sed", "--in-place", "--regexp-extended", remove, *files], check=True)
        for directory in (home / "var-lib", home / "opt" / CLONE.name):
            directory.mkdir(parents=True)
        return cls(home=home)

    def end(self) -> None:
        """Remove it; what was started on it is over."""
        # Before all else, and it fails unless that is empty: the clone must not be mounted there.
        (self.home / "opt" / CLONE.name).rmdir()
        shutil.rmtree(self.home)

    def at(self, path: str) -> Path:
        """Where we find what is there on the host."""
        for there, here in _PLACES.items():
            if path.startswith(f"{there}/"):
                return self.home / here / path.removeprefix(f"{there}/")
        raise ValueError(f"{path} is the same on the host as here")

    def command(self, script: str) -> list[str]:
        """What runs root's script on it, in the clone, as if it had been pasted into a shell."""
        places = {there: shlex.quote(str(self.home / here)) for there, here in _PLACES.items()}
        steps = [
            # While the clone can be found, which may lie in one of them.
            f"mount --bind {shlex.quote(str(ROOT))} {places['/opt']}/{CLONE.name}",
            *[f"mount --rbind {here} {there}" for there, here in places.items()],
            f"cd {CLONE}",
            f"exec bash -euo pipefail -c {shlex.quote(script)}",
        ]
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(steps)]

    def run(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What it printed; it must not fail unless that is asked for."""
        done = subprocess.run(
            self.command(script),
            env=_ROOTS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}"
        return done

    def start(self, script: str, log: Path) -> subprocess.Popen[bytes]:
        """Start it as the leader of a session of its own; who starts it ends the session.

        :param script: its last command is an exec of what does not fork, or a killed test leaves that behind.
        """
        with log.open("wb") as output:
            started = subprocess.Popen(
                self.command(script), env=_ROOTS, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        guard.watch_process(started.pid)
        return started
