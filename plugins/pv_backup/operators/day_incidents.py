"""Whose incident it is when a backup of a day fails, and when it is over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from pv_backup.operators.workbench import journal_hook
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import PvBackupError

if TYPE_CHECKING:
    from datetime import date

    from airflow.sdk import Context

    from pv_backup.operators.configuration import ConnectionIds

log = logging.getLogger(__name__)

#: The run's own, whoever finds it dead: roles and dump that fail of the same are one incident.
DAG_OF: Final = {
    ArtefactType.PG_DUMP: "pv_backup_daily_dump",
    ArtefactType.GLOBALS: "pv_backup_daily_dump",
    ArtefactType.BASEBACKUP: "pv_backup_weekly_basebackup",
}


def settle_day(context: Context, *, connections: ConnectionIds, artefact_type: ArtefactType, day: date) -> None:
    """Note that the incidents of a backup's day are over, unless what its DAG makes beside it has failed."""
    from pv_backup.operators.alerting import settle
    from pv_backup.services.left_behind import LeftBehind

    dag_id = DAG_OF[artefact_type]
    beside = [other for other, its_dag in DAG_OF.items() if its_dag == dag_id]
    try:
        failed = LeftBehind(journal_hook(connections).sessions()).failed(beside, day)
    except PvBackupError:
        log.exception("whether the day's incidents are over is not known; they may be told once more")
        return
    if not failed:
        settle(context, connections=connections, dag_id=dag_id, day=day.isoformat())
