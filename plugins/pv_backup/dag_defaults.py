"""What all DAGs of this package but the watchdog share, so that a DAG file says only what is its own."""

from __future__ import annotations

from typing import Any, Final

from pv_backup.dag_basics import BASIC_ARGS
from pv_backup.notifiers.incident import IncidentNotifier
from pv_backup.notifiers.lines import SecondLine

DEFAULT_ARGS: Final[dict[str, Any]] = {**BASIC_ARGS, "on_failure_callback": IncidentNotifier()}

#: The `on_failure_callback` of each DAG itself: for tasks that were killed before they could tell anybody.
ON_RUN_FAILURE: Final = SecondLine(IncidentNotifier())
