"""Tell people, by every channel, once an incident: the one door through which all alerts go."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from threading import Thread
from typing import Final, Protocol

from pv_backup.services.alert_memory import AlertMemory
from pv_backup.services.alerts import Alert, Channel
from pv_backup.services.errors import ChannelNotConfigured, JournalUnavailable

log = logging.getLogger(__name__)

#: Seconds that telling takes at most: a failed task has 20 left (`[core] task_success_overtime`).
PATIENCE_S: Final = 15.0


class StandIn(Protocol):
    """What remembers alerts while the journal can't."""

    def tell_once(self, alert: Alert, channel: Channel) -> bool:
        """Send the alert if it is news on this channel; what the channel raises comes through."""

    def forget(self, flow: str) -> None:
        """The journal was reached, and knows better."""


class Alarm:
    """Sends alerts; whatever goes wrong with it is logged, and hides neither the error nor the other channels.

    :param memory: the journal's; None where it can't be had at all.
    :param local: the worker's own or the task's, for as long as the journal can't be reached.
    """

    def __init__(self, *, channels: Sequence[Channel], memory: AlertMemory | None, local: StandIn) -> None:
        self._channels = channels
        self._memory = memory
        self._local = local

    def tell(self, alert: Alert) -> bool:
        """Send it by each channel on which its incident is news; never raises.

        All channels at once: one that hangs must not cost the others the seconds that a failed task has left.

        :returns: False if a channel that was asked for did not take it; the next occurrence tries that one again.
        """
        done: dict[str, bool] = {}
        threads = [
            Thread(target=self._tell_by, args=(channel, alert, done), name=f"alert by {channel.name}", daemon=True)
            for channel in self._channels
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for channel in self._channels:
            if channel.name not in done:
                log.error("alert channel %s did not answer within %s s", channel.name, PATIENCE_S)
        return all(done.get(channel.name, False) for channel in self._channels)

    def _tell_by(self, channel: Channel, alert: Alert, done: dict[str, bool]) -> None:
        try:
            if not self._tell_once(alert, channel):
                log.info("%s was told by %s already, and is not settled", alert.incident, channel.name)
            done[channel.name] = True
        except ChannelNotConfigured as error:
            log.warning("%s", error)
            done[channel.name] = True
        except Exception:
            log.exception("alert channel %s failed; the next occurrence tries it again", channel.name)
            done[channel.name] = False

    def _tell_once(self, alert: Alert, channel: Channel) -> bool:
        if self._memory is not None:
            try:
                news = self._memory.tell_once(alert, channel)
            except JournalUnavailable as error:
                log.warning("%s", error)
            else:
                self._local.forget(alert.incident)
                return news
        return self._local.tell_once(alert, channel)
