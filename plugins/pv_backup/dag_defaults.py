"""What all DAGs of this package but the watchdog share, so that a DAG file says only what is its own."""

from __future__ import annotations

from typing import Any, Final

from pv_backup.dag_basics import BASIC_ARGS

DEFAULT_ARGS: Final[dict[str, Any]] = {**BASIC_ARGS}
