"""Run one DAG file in a process of its own and print what it did: seconds taken, and what it had no business with.

Started by test_imports.py as ``python import_probe.py DAG_FILE``; what Airflow and its providers do for themselves
comes before the watch.
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


def main(dag_file: str) -> None:
    """Import Airflow, then the DAG file under watch."""
    # They look at the environment (botocore, OpenTelemetry) and whether the machine has IPv6 (urllib3).
    import airflow.providers.amazon.aws.sensors.s3
    import airflow.providers.standard.operators.trigger_dagrun  # noqa: F401

    began = time.perf_counter()
    from airflow.sdk import CronTriggerTimetable  # noqa: F401 - its croniter runs `file` to learn the word size

    airflow_imported = time.perf_counter()
    sys.addaudithook(watch)
    os.environ.__class__ = WatchedEnvironment
    runpy.run_path(dag_file)
    ended = time.perf_counter()
    os.environ.__class__ = WatchedEnvironment.__base__
    print(json.dumps({"airflow_s": airflow_imported - began, "file_s": ended - airflow_imported, "touched": touched}))


if __name__ == "__main__":
    main(sys.argv[1])
