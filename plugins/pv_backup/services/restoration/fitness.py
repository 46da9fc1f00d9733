"""Whether a restored server failed, or what it holds: only the latter says anything of the backup (SPEC F4.3)."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from pv_backup.services.errors import RestoreFailed
from pv_backup.services.restoration.asking import Unanswered
from pv_backup.services.restoration.server import RestoredServer

_ENDS_WITHIN_S: Final = 30.0
# SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV: nobody sends these; a page broken behind a sound header may cause them.
_CRASH: Final = re.compile(
    r'(?:server process|background worker "parallel worker") .*was terminated by signal (?:4|6|7|8|11)\b.*'
)


def demand_fit(server: RestoredServer) -> Unanswered:
    """What a check is to ask before it calls a failed query a finding.

    :returns: raises a RestoreFailed with the end of the server's log, if the server ended; StagingFull, if its staging
        directory is full. One that died of what it read did answer in its way: then its last words are returned.
    """

    def unanswered(failed: str) -> str:
        if server.is_unfit() or (not _lets_in(server) and server.is_unfit(_ENDS_WITHIN_S)):
            # Without room for its WAL it ends itself by signal 6.
            if not server.has_no_room and (crash := _CRASH.search(server.log_text)):
                return f"the server died of what it read: {crash[0]}"
            remedy = (
                "its log says what ended it (signal 9: see the kernel's log for the OOM killer). That tells nothing of "
                "the backup: start the drill again"
            )
            raise server.explained(RestoreFailed(failed, remedy=remedy)) from None
        return ""

    return unanswered


def _lets_in(server: RestoredServer) -> bool:
    """One of whose processes one died does not: it ends the others first, then itself."""
    try:
        server.connect().close()
    except psycopg.OperationalError:
        return False
    return True
