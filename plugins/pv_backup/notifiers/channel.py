"""What mail and webhook share: each is a channel of the services and one of Airflow's notifiers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from airflow.sdk import BaseNotifier

from pv_backup.notifiers.failures import alert_of_failure, was_told
from pv_backup.services.errors import ChannelNotConfigured

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.alerts import Alert


class ChannelNotifier(BaseNotifier):
    """Tells of a failed task by one channel, needing neither the journal nor anything that remembers.

    As a callback of its own it is for the watchdog, which may read no table; everywhere else
    :class:`~pv_backup.notifiers.incident.IncidentNotifier` goes before it.
    """

    name: ClassVar[str]

    @abstractmethod
    def send(self, alert: Alert) -> None:
        """Deliver it within about twenty seconds.

        :raises ChannelNotConfigured: if its Airflow connection is not defined.
        :raises AlertUndelivered: saying why, with no secret in it.
        """

    def notify(self, context: Context) -> None:
        """Tell of the failed task, unless its error was told where it was found."""
        if was_told(context):
            self.log.info("not told again by %s: people were alerted of this before", self.name)
            return
        try:
            self.send(alert_of_failure(context))
        except ChannelNotConfigured as error:
            self.log.warning("%s", error)
