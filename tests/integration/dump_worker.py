"""A worker that runs the tasks of the daily dump, or reconciliation: `python -m tests.integration.dump_worker`.

The tasks are those of the DAG files, with the connections that an order brings (:mod:`tests.integration.killable`).
"""

from __future__ import annotations

import copy
import os
import runpy
import subprocess
import threading
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from botocore.loaders import JSONFileLoader
from sqlalchemy import Engine, event

from pv_backup.operators import reconcile
from pv_backup.operators.configuration import ConnectionIds, load_settings
from pv_backup.operators.workbench import build_workbench
from tests.dags.dag_world import ROOT
from tests.integration import killable
from tests.integration.killable import Steps
from tests.integration.worker import context_of

#: In the order of the DAG; `back_up_roles`, which makes an artefact of its own beside them, is left out.
DUMP = ("check_the_source", "stream_dump", "verify_upload", "publish_manifest", "record_success")


@dataclass(frozen=True, kw_only=True)
class Order(killable.Order):
    """One run.

    :ivar run_id: of a dump; empty: reconciliation.
    :ivar day: of the dump, `YYYY-MM-DD`.
    :ivar environment: the variables in which Airflow finds its connections, and we our settings.
    """

    environment: dict[str, str]

    run_id: str = ""
    day: str = ""


def _dump(tasks: dict[str, Any], order: Order, steps: Steps) -> None:
    first = tasks["open_the_day"]
    known = {"run_id": order.run_id, "params": {"day": order.day, "reason": ""}}
    backup_id = copy.copy(first).execute(context_of(first, **known))
    steps.hear("between tasks, after open_the_day")
    for name in DUMP:
        task = copy.copy(tasks[name])
        task.backup_id, task.outlets = backup_id, []
        task.execute(context_of(task, **known))
        steps.hear(f"between tasks, after {name}")


def _hear_tools(steps: Steps) -> None:
    start = subprocess.Popen.__init__

    def started(self: Any, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        steps.hear("a tool runs")

    subprocess.Popen.__init__ = started  # type: ignore[method-assign]


def _hear_commit(steps: Steps) -> None:
    # Renewals come by the clock: counted, they would make a step's number another one in each run.
    if threading.current_thread().name != "lease renewal":
        steps.hear("journal: before COMMIT")


#: In the place of boto3's reading of its description of S3, a tenth of a second for each client.
read_once = cache(JSONFileLoader().load_file)


@cache
def _warm_up() -> None:
    """Load what every run loads, with nothing opened."""
    JSONFileLoader.load_file = lambda self, path: read_once(path)
    build_workbench(ConnectionIds(), load_settings())
    for name in ("hooks.source", "services.exporting", "services.publication", "services.reconciliation_run"):
        import_module(f"pv_backup.{name}")


def main() -> None:
    steps, answers = Steps(), killable.answers_alone()
    dump = runpy.run_path(str(ROOT / "dags" / "pv_backup_daily_dump.py"))
    reconciliation = runpy.run_path(str(ROOT / "dags" / "pv_backup_reconciliation.py"))
    # A sweep's dead runs are dead: nobody need wait for them to renew their lease after all.
    reconcile._SECOND_LOOK_AT_MOST_S = 0  # type: ignore[misc]
    event.listen(Engine, "commit", lambda connection: _hear_commit(steps))
    killable.hear_requests(steps.hear)
    _hear_tools(steps)

    def order_of(**fields: Any) -> Order:
        order = Order(**fields)
        os.environ.update(order.environment)
        _warm_up()
        return order

    def run(order: Order) -> None:
        if order.run_id:
            _dump(dump, order, steps)
        else:
            task = reconciliation["settle_what_is_left"]
            task.execute(context_of(task))

    killable.serve(order_of, run, steps=steps, answers=answers)


if __name__ == "__main__":
    main()
