"""Several machines on one: a worker that shares neither name nor temporary directories with any other.

On a single machine a task that left a file in /tmp for the next one would work, and fail in production. In namespaces
of its own a worker finds a /tmp that nobody else writes to, and of the real one only what it is told that it may see.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import psutil

from dev import guard
from dev.airflow_env import ROOT
from dev.airflow_server import end

NEEDS = "a machine of its own is made of namespaces, which need root, or a kernel that lets users make them"
TEMPORARY = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
PATIENCE_S = 120
_AS_USER = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
_UNSHARE = ["unshare", *_AS_USER, "--mount", "--propagation=private", "--uts"]
# What shall be seen waits below /mnt while empty directories are put over the temporary ones.
_ENTER = """
set -e
hostname "$1"
shift
mount -t tmpfs tmpfs /mnt
number=0
for seen; do
    shift
    [ "$seen" != + ] || break
    number=$((number + 1))
    mkdir "/mnt/$number"
    mount --bind "$seen" "/mnt/$number"
done
for hidden; do
    shift
    [ "$hidden" != + ] || break
    mount -t tmpfs -o mode=1777 tmpfs "$hidden"
done
number=0
for seen; do
    shift
    [ "$seen" != + ] || break
    number=$((number + 1))
    mkdir -p "$seen"
    mount --bind "/mnt/$number" "$seen"
    umount "/mnt/$number"
done
umount /mnt
cd "$HOME"
exec "$@"
"""


@cache
def can_be_had() -> bool:
    """Whether this kernel, container and user let us make one."""
    trial = [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


class Machine:
    """A name, a home and temporary directories that no other machine has; the network is everybody's.

    :param sees: what it has in common with the real machine below the temporary directories, beside the code.
    :ivar home: of all that runs there, and the directory where it starts.
    :ivar staging: below it; PostgreSQL's user may pass through.
    :ivar outlived: the processes that were still there when its program had ended in order.
    """

    def __init__(self, name: str, *, sees: Sequence[Path] = ()) -> None:
        self.name = name
        self.home = Path(tempfile.mkdtemp(prefix=f"pv-backup-{name}-")).resolve()
        guard.watch_path(self.home)
        self.home.chmod(0o711)
        self.staging = self.home / "staging"
        self.staging.mkdir(mode=0o711)
        self._sees = [path.resolve() for path in (self.home, ROOT, *sees)]
        self.outlived: list[psutil.Process] = []
        self._namespace: str | None = None

    def start(self, command: Sequence[str], *, env: dict[str, str], log: BinaryIO) -> None:
        """Start the one program that the machine is there for."""
        self._child = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", _ENTER, "machine", self.name, *self._mounts(), *command],
            env=env | {"HOME": str(self.home), "TMPDIR": "/tmp"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        guard.watch_process(self._child.pid)
        deadline = time.monotonic() + PATIENCE_S
        while (namespace := _namespace_of(self._child.pid)) in (None, _namespace_of(os.getpid())):
            assert self._child.poll() is None, f"{self.name} ended before it began; the log says why"
            assert time.monotonic() < deadline, f"{self.name} has no namespaces after {PATIENCE_S} s"
            time.sleep(0.01)
        self._namespace = namespace
        # As long as it is open, nobody else's namespace gets this number, and nobody else is killed by it.
        self._pinned = os.open(f"/proc/{self._child.pid}/ns/mnt", os.O_RDONLY)

    def can_see(self, path: Path) -> bool:
        """Whether the path leads anywhere on the running machine."""
        return self._inside(path).exists()

    def files(self) -> list[Path]:
        """Every file in its staging directory and, while it runs, in its temporary ones, but for what it was given."""
        directories = [self.staging, *(self._inside(path) for path in TEMPORARY if self.processes())]
        given = {self._inside(path) for path in self._sees}
        found = []
        for directory in directories:
            for folder, below, names in os.walk(directory):
                # A clone that lies in /tmp is given too, and has a hundred thousand files.
                below[:] = [name for name in below if Path(folder, name) not in given]
                found += [path for name in names if (path := Path(folder, name)).is_file()]
        return found

    def processes(self) -> list[psutil.Process]:
        """All that runs there, whoever started it."""
        if self._namespace is None:
            return []
        return [process for process in psutil.process_iter() if _namespace_of(process.pid) == self._namespace]

    def cut_the_power(self) -> None:
        """End every process of it with SIGKILL."""
        deadline = time.monotonic() + PATIENCE_S
        while running := self.processes():
            for process in running:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            assert time.monotonic() < deadline, f"{running} of {self.name} outlive SIGKILL"
        if self._namespace is not None:
            self._child.wait(PATIENCE_S)
            os.close(self._pinned)
            self._namespace = None

    def shut_down(self) -> None:
        """End its program in order, then whatever is left, which it remembers."""
        if self._namespace is not None:
            end(self._child)
        self.outlived = [*self.outlived, *self.processes()]
        self.cut_the_power()

    def discard(self) -> None:
        """Leave nothing behind."""
        self.cut_the_power()
        shutil.rmtree(self.home)

    def _inside(self, path: Path) -> Path:
        """A path of the running machine, as it is reached from outside."""
        return Path(f"/proc/{self._child.pid}/root{path}")

    def _mounts(self) -> list[str]:
        """What is seen, what is hidden, and what is seen once more; each list ends with a plus sign."""
        seen = [str(path) for path in self._sees]
        hidden = sorted({str(path.resolve()) for path in (*TEMPORARY, Path(tempfile.gettempdir()))})
        return [*seen, "+", *hidden, "+", *seen, "+"]


def _namespace_of(pid: int) -> str | None:
    """Of mounts; None: the process is gone, or not ours."""
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return None
