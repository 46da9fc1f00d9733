"""The notifier of every DAG that has a journal: one incident, one message on each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv_backup.notifiers.lines import FirstLine
from pv_backup.operators.configuration import ConnectionIds

if TYPE_CHECKING:
    from pv_backup.services.alerts import Alert


class IncidentNotifier(FirstLine):
    """Tells of a failed task by log, mail and webhook, and remembers it in the journal.

    :param connections: the Airflow connections to use.
    """

    word = "told"

    def __init__(self, *, connections: ConnectionIds | None = None) -> None:
        super().__init__()
        self.connections = connections or ConnectionIds()

    def tell(self, alert: Alert) -> bool:
        """Once an incident on each channel, whichever line asks for it."""
        from pv_backup.operators.alerting import alarm

        return alarm(self.connections).tell(alert)
