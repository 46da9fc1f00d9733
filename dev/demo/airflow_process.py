"""One process that runs DAGs as ``airflow dags test`` does, one after the other.

Starting Airflow and the API that its tasks talk to costs 15 s and more; each further run in the same process, 2 s.

Reads DAG ids from standard input, a line each; after each run it prints :data:`ENDED` and the exit status.
"""

from __future__ import annotations

import sys

ENDED = "dag run ended with status"


def main() -> None:
    """Run what is asked for until standard input ends; a DAG that fails does not end us."""
    from airflow.cli.cli_parser import get_parser

    parser = get_parser()
    for line in sys.stdin:
        options = parser.parse_args(["dags", "test", line.strip()])
        try:
            options.func(options)
            status: object = 0
        except SystemExit as failed:
            status = failed.code
        print(f"{ENDED} {status}", flush=True)


if __name__ == "__main__":
    main()
