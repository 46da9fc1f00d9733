"""What ALTER SYSTEM set on the source: it must not rule a recovery of ours.

PostgreSQL reads `postgresql.auto.conf` in the data directory whatever `config_file` is. On a source that was ever
recovered by another tool, it holds that recovery's target, its commands and its publisher; and always whatever memory
and libraries the source had. A second target, or one that is never met, ends a recovery; a shell command of the
source's would run here. So the file is set aside for as long as we recover, rather than overruled parameter by
parameter: what it may hold is as much as PostgreSQL and all extensions know.

Source: https://www.postgresql.org/docs/15/config-setting.html, sections 20.1.2; 20.5.4 and 20.5.5 for recovery.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

from pv_backup.services.restoration.tools import hand_to

log = logging.getLogger(__name__)

_FILE: Final = "postgresql.auto.conf"
_ASIDE: Final = f"{_FILE}.source"
# What was meant for another recovery, another server or another archive.
_FOREIGN: Final = re.compile(
    rb"\s*((?:recovery_(?:target\w*|end_command|min_apply_delay)|restore_command|archive_\w+"
    rb"|primary_conninfo|primary_slot_name|promote_trigger_file))\b",
    re.IGNORECASE,
)
_NO_ARCHIVE: Final = b"archive_mode = 'off'\n"


def set_aside(directory: Path) -> None:
    """Let nothing of it apply; a cluster without the file is well."""
    own = directory / _FILE
    if own.exists():
        own.rename(directory / _ASIDE)


def put_back(directory: Path, *, user: str | None, stop_archiving: bool) -> None:
    """Give a recovered cluster what ALTER SYSTEM set on its source, less what would lead it astray.

    Targets, commands and publisher of a recovery are left out: without `recovery.signal` they do nothing, and would
    again end the next recovery. So is the archive, into which this server must not write beside its source. Memory and
    libraries stay: they are the source's configuration, as its `postgresql.conf` is, and may have to be cut to this
    machine. If anything was left out, the whole file stays beside it, as `postgresql.auto.conf.source`.

    :param user: the owner, None for ourselves.
    :param stop_archiving: whether another file may turn archiving on: then this one, which overrules it, turns it off
        until somebody says otherwise (`ALTER SYSTEM RESET archive_mode`).
    """
    aside, path = directory / _ASIDE, directory / _FILE
    lines = aside.read_bytes().splitlines(keepends=True) if aside.exists() else []
    foreign = sorted({found[1].decode().lower() for line in lines if (found := _FOREIGN.match(line))})
    kept = b"".join(line for line in lines if not _FOREIGN.match(line))
    if stop_archiving:
        log.info("archiving is off in %s, until somebody chooses an archive of this server's own", path)
        kept += (b"" if not kept or kept.endswith(b"\n") else b"\n") + _NO_ARCHIVE
    path.write_bytes(kept)
    path.chmod(0o600)
    hand_to(user, path)
    if foreign:
        log.warning("%s comes back without %s; the source's whole file is %s", path, ", ".join(foreign), aside.name)
    else:
        aside.unlink(missing_ok=True)
