"""Tell people, by every channel, once an incident: the one door through which all alerts go."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pv_backup.services.alert_memory import AlertMemory
from pv_backup.services.alerts import Alert, Channel
from pv_backup.services.errors import ChannelNotConfigured, JournalUnavailable
from pv_backup.services.local_memory import LocalMemory

log = logging.getLogger(__name__)


class Alarm:
    """Sends alerts; whatever goes wrong with it is logged, and hides neither the error nor the other channels.

    :param memory: the journal's; None where it can't be had at all.
    :param local: the worker's own, for as long as the journal can't be reached.
    """

    def __init__(self, *, channels: Sequence[Channel], memory: AlertMemory | None, local: LocalMemory) -> None:
        self._channels = channels
        self._memory = memory
        self._local = local

    def tell(self, alert: Alert) -> None:
        """Send it by each channel on which its incident is news; never raises."""
        for channel in self._channels:
            try:
                if not self._tell_once(alert, channel):
                    log.info("%s was told by %s already, and is not settled", alert.incident, channel.name)
            except ChannelNotConfigured as error:
                log.warning("%s", error)
            except Exception:
                log.exception("alert channel %s failed; the next occurrence tries it again", channel.name)

    def _tell_once(self, alert: Alert, channel: Channel) -> bool:
        if self._memory is not None:
            try:
                news = self._memory.tell_once(alert, channel)
            except JournalUnavailable as error:
                log.warning("%s", error)
                self._memory = None  # a second channel need not wait for the same door
            else:
                self._local.forget(alert.incident)
                return news
        return self._local.tell_once(alert, channel)
