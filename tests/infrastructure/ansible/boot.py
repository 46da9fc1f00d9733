"""Holds a machine: boots it when started, and takes it away when standard input ends, as it does if pytest dies.

Standard output gets the process id of its systemd. Nothing is left: no process, no mount, no cgroup.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

_BOOT = Path(__file__).with_name("boot.sh")


def cgroup_root() -> Path | None:
    """Where cgroups of version 2 are mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def main(root: Path, log: Path) -> None:
    """Make a machine in the empty directory `root`, and wait."""
    above = cgroup_root()
    assert above is not None, "no cgroup2 is mounted"
    cgroup = above / root.parent.name
    cgroup.mkdir()
    namespaces = ["unshare", "--mount", "--mount-proc", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
    with log.open("wb") as output:
        machine = subprocess.Popen(
            # It dies with us, should somebody kill us.
            ["setpriv", "--pdeathsig", "KILL", *namespaces, "bash", _BOOT, root, cgroup],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        threading.Thread(target=_announce, args=[machine], daemon=True).start()
        sys.stdin.read()
    finally:
        machine.kill()
        machine.wait()
        _remove(cgroup)


def _announce(machine: subprocess.Popen[bytes]) -> None:
    """Say which process is the machine's first, once it has become systemd; an empty line if it never does."""
    while machine.poll() is None:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(machine.pid).children():
                if child.name() == "systemd":
                    print(child.pid, flush=True)
                    return
        time.sleep(0.1)
    print("", flush=True)


def _remove(cgroup: Path) -> None:
    """Remove it and those below, which are empty a moment after the kill."""
    deadline = time.monotonic() + 60
    while cgroup.exists() and time.monotonic() < deadline:
        try:
            for directory in [*sorted(cgroup.rglob("*/"), reverse=True), cgroup]:
                directory.rmdir()
        except OSError:
            time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
