"""``python -m dev up|down|clean|airflow``: what the Makefile calls."""

from __future__ import annotations

import argparse
import subprocess
import sys

from dev import airflow_server, environment
from dev.ports import PortTakenError
from dev.processes import ServerFailedError


def main() -> int:
    """Run one command of the stack; a failure that has a remedy is told in its own words, without a traceback."""
    commands = {
        "up": environment.up,
        "down": environment.down,
        "clean": environment.clean,
        "airflow": airflow_server.run,
    }
    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    parser.add_argument("command", choices=commands)
    try:
        commands[parser.parse_args().command]()
    except (PortTakenError, ServerFailedError) as failure:
        print(failure, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as failure:
        print(f"`{' '.join(map(str, failure.cmd))}` failed with exit status {failure.returncode}", file=sys.stderr)
        print(failure.stdout or "", failure.stderr or "", sep="", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
