"""The deadline's alert: a scheduled run that is not over when it should be."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pv_backup.notifiers.failures import day_or_words
from pv_backup.operators.configuration import ConnectionIds

if TYPE_CHECKING:
    from pv_backup.services.alerts import Alert

log = logging.getLogger(__name__)

_STILL_GOING = ("queued", "running")


async def tell_late(context: dict[str, Any]) -> None:
    """Tell that a scheduled run missed its deadline; Airflow calls this in the triggerer.

    A person who triggered a run watches it, and the relaunch has a deadline of its own. A run that failed was told
    by its task, or by the second line.

    :param context: Airflow's: `dag_run` as the API shows it, and `deadline` with its `deadline_time`.
    """
    from asgiref.sync import sync_to_async

    run = context["dag_run"]
    if run["run_type"] != "scheduled" or run["state"] not in _STILL_GOING:
        log.info("%s run %s is %s: nobody is told that it is late", run["run_type"], run["dag_run_id"], run["state"])
        return
    # Channels and journal block, and a triggerer may not.
    await sync_to_async(_tell, thread_sensitive=False)(_alert(run, context["deadline"]["deadline_time"]))


def _tell(alert: Alert) -> None:
    from pv_backup.operators.alerting import alarm

    alarm(ConnectionIds()).tell(alert)


def _alert(run: dict[str, Any], deadline: datetime | str) -> Alert:
    from urllib.parse import quote

    from airflow.sdk.configuration import conf

    from pv_backup.services.alerts import Alert
    from pv_backup.services.days import PARIS
    from pv_backup.services.errors import RunLate

    due = deadline if isinstance(deadline, datetime) else datetime.fromisoformat(deadline)
    base = conf.get("api", "base_url", fallback="http://localhost:8080/").rstrip("/")
    return Alert.from_error(
        RunLate(
            f"the run that is due by {due.astimezone(PARIS):%H:%M} is {run['state']} still",
            remedy="see which task it is at, and what slows it; at 04:00 the watchdog looks for the backup itself",
        ),
        dag_id=run["dag_id"],
        day=day_or_words(datetime.fromisoformat(run["run_after"]), str((run["conf"] or {}).get("day", ""))),
        run_url=f"{base}/dags/{run['dag_id']}/runs/{quote(run['dag_run_id'])}",
    )
