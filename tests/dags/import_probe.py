"""Run DAG files, each in a process of its own, and print what each did: how long it took, what it may not do.

Started by test_imports.py as ``python import_probe.py DAG_FILE…``; what Airflow and its providers do for themselves
comes before the watch, once: a file runs in a fork of the process that has imported them.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time

_OUTSIDE_WORLD = ("socket.", "subprocess.", "os.system", "os.posix_spawn", "sqlite3.connect")

touched: list[str] = []


class WatchedEnvironment(type(os.environ)):  # type: ignore[misc]
    """The environment, noting each name that is read; `get`, `in` and iterating all come through here."""

    def __getitem__(self, name: str) -> str:
        touched.append(f"environment variable {name}")
        return super().__getitem__(name)

    def __iter__(self):  # type: ignore[no-untyped-def]
        touched.append("the whole environment")
        return super().__iter__()


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Note, and prevent, whatever leaves the process."""
    if event.startswith(_OUTSIDE_WORLD):
        touched.append(f"{event} {arguments}")
        raise PermissionError(f"a DAG file may not do this while it is parsed: {event} {arguments}")


def main(dag_files: list[str]) -> None:
    """Import Airflow, then each DAG file under watch; a line of JSON for each."""
    # They look at the environment (botocore, OpenTelemetry) and whether the machine has IPv6 (urllib3).
    import airflow.providers.amazon.aws.sensors.s3
    import airflow.providers.standard.operators.trigger_dagrun  # noqa: F401
    from airflow.sdk import CronTriggerTimetable  # noqa: F401 - its croniter runs `file` to learn the word size

    for dag_file in dag_files:
        child = os.fork()
        if not child:
            run_watched(dag_file)
            return
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{dag_file} does not import")


def run_watched(dag_file: str) -> None:
    """Import one file, and say what that did."""
    sys.addaudithook(watch)
    os.environ.__class__ = WatchedEnvironment
    began = time.perf_counter()
    runpy.run_path(dag_file)
    seconds = time.perf_counter() - began
    os.environ.__class__ = WatchedEnvironment.__base__
    print(json.dumps({"file_s": seconds, "touched": touched}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
