"""PostgreSQL's archiver, without PostgreSQL: one call of `archive_command` for each ready segment, in order.

    python -S -E archiver.py DATA_DIRECTORY COMMAND…        %p in the command is the segment's path

Run as a program of its own, so that all that the command leaves running becomes its child and is counted with it:
pgBackRest's asynchronous process detaches itself from the call that started it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def main() -> None:
    """Archive all that is ready, then wait for whatever still runs."""
    data, command = Path(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    status = data / "pg_wal" / "archive_status"
    for ready in sorted(status.glob("*.ready")):
        path = f"pg_wal/{ready.stem}"
        subprocess.run([word.replace("%p", path) for word in command], cwd=data, check=True)
        ready.rename(ready.with_suffix(".done"))
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
