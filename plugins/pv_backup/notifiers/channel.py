"""What mail and webhook share: each is a channel of the services and one of Airflow's notifiers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pv_backup.notifiers.lines import FirstLine
from pv_backup.services.errors import ChannelNotConfigured

if TYPE_CHECKING:
    from pv_backup.services.alerts import Alert


class ChannelNotifier(FirstLine):
    """Tells of a failed task by one channel, needing neither the journal nor anything that remembers.

    As a callback of its own it is for the watchdog, which may read no table; everywhere else
    :class:`~pv_backup.notifiers.incident.IncidentNotifier` goes before it.
    """

    name: ClassVar[str]

    @abstractmethod
    def send(self, alert: Alert) -> None:
        """Deliver it, in seconds.

        :raises ChannelNotConfigured: if its Airflow connection is not defined.
        :raises AlertUndelivered: saying why, with no secret in it.
        """

    @property
    def word(self) -> str:
        """One for each channel."""
        return f"told by {self.name}"

    def tell(self, alert: Alert) -> bool:
        """By this channel alone, where it is configured."""
        try:
            self.send(alert)
        except ChannelNotConfigured as error:
            self.log.warning("%s", error)
        except Exception:
            self.log.exception("alert channel %s failed", self.name)
            return False
        return True
