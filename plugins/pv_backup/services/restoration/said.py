"""What a program of a restoration says, kept for the one who must read why it failed."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import IO, Final

from pv_backup.services.restoration.discretion import Discretion

# The second is PostgreSQL's hint when a block fitted in part: then the system gave it no error to quote.
_NO_ROOM: Final = re.compile("No space left on device|Check free disk space|Disk quota exceeded")
_TAIL_LINES: Final = 12
_KEPT_LINES: Final = 400
# They see files and no rows.
_SEE_NO_ROWS: Final = frozenset({"tar", "initdb", "pg_verifybackup"})


class Tail:
    """The end of what a program says, read as it comes, so that it never waits for us, and without the rows it quotes.

    :param name: the program's; `postgres` indents with a tab what goes on from one line to the next.
    :ivar no_room: whether it ever said that the disk is full.
    """

    def __init__(self, stream: IO[bytes], *, name: str) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._discretion = None if name in _SEE_NO_ROWS else Discretion(self._lines, is_server=name == "postgres")
        self.no_room = False
        self._stream = stream
        self._thread = threading.Thread(target=self._collect, name=f"{name}-output", daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        with self._stream, open(self._stream.fileno(), "rb", closefd=False) as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                self.no_room = self.no_room or _NO_ROOM.search(text) is not None
                if self._discretion is not None:
                    self._discretion.hear(text)
                elif text:
                    self._lines.append(text)

    def end(self, patience_s: float | None = None) -> None:
        """Wait until the program and all that it started have ended what they say."""
        self._thread.join(patience_s)

    @property
    def text(self) -> str:
        """All lines that are kept."""
        return "\n".join(self._lines)

    def last(self) -> str:
        """The last lines, in one."""
        return "\n".join(list(self._lines)[-_TAIL_LINES:]) or "it said nothing"
