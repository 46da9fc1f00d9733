"""What a program of a restoration says, kept for the one who must read why it failed."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import IO, Final

# The second is PostgreSQL's hint when a block fitted in part: then the system gave it no error to quote.
_NO_ROOM: Final = re.compile("No space left on device|Check free disk space|Disk quota exceeded")
_TAIL_LINES: Final = 12
_KEPT_LINES: Final = 400
# An error is sent to people and stands in the evidence, where the rows that PostgreSQL quotes are nobody's business.
_QUOTES_A_ROW: Final = re.compile(
    r"(?:Failing row contains |Key \(.*?\)=|COPY .*?, line \d+(?:, column [^:]+)?: |invalid input [a-z ]+: )(?=.)"
)
# A row may go on in further lines; these begin something else.
_LABEL: Final = re.compile(
    r"(?:pg_restore|psql|Command was|LINE \d+|ERROR|DETAIL|HINT|CONTEXT|QUERY|STATEMENT|\d{4}-\d\d-\d\d \d\d:\d\d)\b"
)


class Tail:
    """The end of what a program says, read as it comes, so that it never waits for us, and without the rows it quotes.

    :ivar no_room: whether it ever said that the disk is full.
    """

    def __init__(self, stream: IO[bytes], *, name: str) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.no_room = False
        self._stream = stream
        self._in_a_row = False
        self._thread = threading.Thread(target=self._collect, name=f"{name}-output", daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        with self._stream, open(self._stream.fileno(), "rb", closefd=False) as lines:
            for line in lines:
                text = self._without_rows(line.decode(errors="replace").rstrip())
                self.no_room = self.no_room or _NO_ROOM.search(text) is not None
                if text:
                    self._lines.append(text)

    def _without_rows(self, text: str) -> str:
        if self._in_a_row and not _LABEL.match(text):
            return ""
        quoting = _QUOTES_A_ROW.search(text)
        self._in_a_row = quoting is not None
        return text if quoting is None else text[: quoting.end()] + "…"

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
