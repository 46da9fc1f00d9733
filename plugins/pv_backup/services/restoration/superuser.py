"""Who may do everything in a restored cluster: not every one has a role `postgres` (containers name their own)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from pv_backup.services.errors import RestoreFailed
from pv_backup.services.restoration.tools import as_user

# Without line breaks: one ends the query in this mode.
_QUERY: Final = b"SELECT rolname FROM pg_authid WHERE rolsuper AND rolcanlogin ORDER BY oid LIMIT 1\n"
_ANSWER: Final = re.compile(r'rolname = "(.*)"\t\(typeid')
_PATIENCE_S: Final = 120


def find_superuser(command: Sequence[str], *, environment: Mapping[str, str], user: str | None) -> str:
    """Ask a cluster whose server is stopped, in single-user mode, which needs no role to log in.

    Source: https://www.postgresql.org/docs/15/app-postgres.html, section Single-User Mode.

    :param command: `postgres --single` with its options and a database.
    :raises RestoreFailed: if there is none, or PostgreSQL does not say, or not in time.
    """
    try:
        answer = subprocess.run(
            list(command),
            env=dict(environment),
            input=_QUERY,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
            **as_user(user),
        )
    except subprocess.TimeoutExpired:
        raise RestoreFailed(
            f"the restored cluster did not name its superuser in {_PATIENCE_S} s, in single-user mode",
            remedy="see what slows this machine: a disk that hangs? Then restore again",
        ) from None
    found = _ANSWER.search(answer.stdout.decode(errors="replace"))
    if found is None:
        raise RestoreFailed(
            "the restored cluster has no superuser who may log in, as far as single-user mode tells: "
            + answer.stderr.decode(errors="replace").strip()[-500:],
            remedy="let one log in on the source (ALTER ROLE … LOGIN); `postgres --single` reaches what was restored",
        )
    return found[1]
