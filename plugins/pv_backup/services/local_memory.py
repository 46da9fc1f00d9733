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

_Told = dict[str, dict[str, float]]


def own_directory() -> Path:
    """In the worker's temporary directory, each user's own."""
    return Path(tempfile.gettempdir()) / f"pv-backup-alerts-{os.geteuid()}"


class LocalMemory:
    """A JSON file: incident → channel → when it was told there, in Unix seconds.

    :param directory: None takes :func:`own_directory`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or own_directory()

    def tell_once(self, alert: Alert, channel: Channel) -> bool:
        """Send the alert unless this worker has done so within a day; what the channel raises comes through.

        :returns: whether it was sent.
        """
        with self._opened() as told:
            if told is not None and time.time() - told.get(alert.incident, {}).get(channel.name, 0) < REMIND_AFTER_S:
                return False
            channel.send(alert)
            if told is not None:
                told.setdefault(alert.incident, {})[channel.name] = time.time()
        return True

    def forget(self, flow: str) -> None:
        """Let the next outage be news: the journal was reached, and knows better.

        :param flow: what the names of the incidents begin with.
        """
        with suppress(OSError):
            if not self._file.exists():
                return
        with self._opened() as told:
            for incident in [name for name in told or {} if name.startswith(flow)]:
                del (told or {})[incident]

    @property
    def _file(self) -> Path:
        return self._directory / "told.json"

    @contextmanager
    def _opened(self) -> Iterator[_Told | None]:
        """What was told, to be read and changed by one process at a time; None where nothing can be remembered."""
        try:
            lock = self._locked()
        except OSError as error:
            log.warning("this worker can't remember its alerts in %s: %s", self._directory, error.strerror)
            yield None
            return
        try:
            told = self._read()
            yield told
            self._write(told)
        finally:
            os.close(lock)

    def _locked(self) -> int:
        """A descriptor that holds the lock of our directory, which nobody else may have made."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            os.close(descriptor)
            raise PermissionError(0, "it is not this user's alone")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def _read(self) -> _Told:
        """What is younger than a day; a file that says nothing sensible says nothing."""
        try:
            told = json.loads(self._file.read_text())
            youngest = {
                incident: {name: float(at) for name, at in channels.items() if time.time() - float(at) < REMIND_AFTER_S}
                for incident, channels in told.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("what this worker remembers of its alerts in %s can't be read: %s", self._file, error)
            return {}
        return {incident: channels for incident, channels in youngest.items() if channels}

    def _write(self, told: _Told) -> None:
        written = self._file.with_suffix(".new")
        try:
            written.write_text(json.dumps(told))
            written.replace(self._file)
        except OSError as error:
            log.warning("this worker can't remember its alerts in %s: %s", self._directory, error.strerror)
