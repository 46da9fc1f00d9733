"""The day that a run is for."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context


def day_of_run(context: Context) -> date:
    """The Europe/Paris date of the run's `run_after`, or the day before if the form says so (SPEC section 2).

    :raises FormatRejected: if the form names any other day.
    """
    from pv_backup.services.days import choose_day

    run_after = context["dag_run"].run_after
    return choose_day(run_after, str(context["params"].get("day") or "today"))
