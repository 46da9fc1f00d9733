"""What this worker remembers of alerts while the journal, whose business that is, can't be reached.

Without it a journal that is down for a hundred minutes would be a hundred mails. It is a small file in a directory of
the worker's own; where that can't be used, an alert is sent rather than lost.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pv_backup.services.alerts import Alert, Channel

log = logging.getLogger(__name__)

#: Seconds after which an incident that lasts is told again.
REMIND_AFTER_S: Final = 24 * 3600.0

_Told = dict[str, float]


def own_directory() -> Path:
    """In the worker's temporary directory, each user's own."""
    return Path(tempfile.gettempdir()) / f"pv-backup-alerts-{os.geteuid()}"


class LocalMemory:
    """A JSON file for each channel: incident → when it was told there, in Unix seconds.

    :param directory: None takes :func:`own_directory`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or own_directory()

    def tell_once(self, alert: Alert, channel: Channel) -> bool:
        """Send the alert unless this worker has done so within a day; what the channel raises comes through.

        :returns: whether it was sent.
        """
        with self._opened(channel.name) as told:
            if told is not None and time.time() - told.get(alert.incident, 0) < REMIND_AFTER_S:
                return False
            channel.send(alert)
            if told is not None:
                told[alert.incident] = time.time()
        return True

    def forget(self, flow: str) -> None:
        """Let the next outage be news: the journal was reached, and knows better.

        :param flow: what the names of the incidents begin with.
        """
        channels: list[str] = []
        with suppress(OSError):
            channels = [file.stem for file in self._directory.glob("*.json")]
        for channel in channels:
            with self._opened(channel) as told:
                for incident in [name for name in told or {} if name.startswith(flow)]:
                    del (told or {})[incident]

    def _file(self, channel: str) -> Path:
        return self._directory / f"{channel}.json"

    @contextmanager
    def _opened(self, channel: str) -> Iterator[_Told | None]:
        """What was told, to be read and changed by one process at a time; None where nothing can be remembered."""
        try:
            lock = self._locked(channel)
        except OSError as error:
            log.warning("this worker can't remember its alerts in %s: %s", self._directory, error.strerror)
            yield None
            return
        try:
            told = self._read(channel)
            yield told
            self._write(channel, told)
        finally:
            os.close(lock)

    def _locked(self, channel: str) -> int:
        """A descriptor that holds the channel's lock, in a directory that nobody else may have made."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            status = os.fstat(directory)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise PermissionError(0, "it is not this user's alone")
            lock = os.open(f"{channel}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        finally:
            os.close(directory)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def _read(self, channel: str) -> _Told:
        """What is younger than a day; a file that says nothing sensible says nothing."""
        file = self._file(channel)
        try:
            told = {incident: float(at) for incident, at in json.loads(file.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("what this worker remembers of its alerts in %s can't be read: %s", file, error)
            return {}
        return {incident: at for incident, at in told.items() if time.time() - at < REMIND_AFTER_S}

    def _write(self, channel: str, told: _Told) -> None:
        file = self._file(channel)
        written = file.with_suffix(".new")
        try:
            written.write_text(json.dumps(told))
            written.replace(file)
        except OSError as error:
            log.warning("this worker can't remember its alerts in %s: %s", file, error.strerror)
