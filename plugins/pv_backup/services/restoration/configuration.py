"""The configuration of a restored cluster whose own was not in its data directory (Debian keeps it in /etc)."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Final

from pv_backup.services.restoration.tools import as_user, hand_to

# Where Debian's PostgreSQL makes its socket, and its psql looks for one.
_PACKAGED_SOCKETS: Final = Path("/var/run/postgresql")

_SETTINGS: Final = """\
# Written by PV backup: the backup holds no postgresql.conf, since the source kept its own outside of its data
# directory (Debian: /etc/postgresql). Everything not named here has PostgreSQL's default. Take over what the source had
# (memory, max_connections, shared_preload_libraries, locale of messages) before this server works for others.

listen_addresses = 'localhost'
#port = 5432
"""
_SOCKETS: Final = """
# This user may not write where the packaged psql looks for the socket: psql -h {directory}
unix_socket_directories = '{directory}'
"""
_IN_PLACE: Final = """
# The extra tablespaces came back inside of pg_tblspc.
allow_in_place_tablespaces = on
"""
_ARCHIVE: Final = """
# Off until somebody chooses an archive of this server's own: it must not write into the one that it came from.
archive_mode = off
"""

# `peer` and not `trust`: the socket may lie where every user of this machine can connect, and the role is superuser.
_HBA: Final = """\
# Written by PV backup. Whoever is {user} on this machine (or root) gets in as {superuser}, others as the role of their
# own name; nobody by network. What applications need is up to you, such as:
# hostssl  all  all  10.0.0.0/8  scram-sha-256

local  all  all  peer  map=restored
"""
_IDENT: Final = """\
# Written by PV backup: MAPNAME  SYSTEM-USERNAME  PG-USERNAME
restored  {user}  {superuser}
restored  root  {superuser}
restored  /^(.*)$  \\1
"""


def add_missing_configuration(directory: Path, *, user: str | None, superuser: str, in_place: bool) -> list[str]:
    """Write what a plain `pg_ctl start` needs and the backup did not hold; what is there stays as it is.

    :param user: whom the server will run as, None for ourselves.
    :param superuser: a role that may log in.
    :param in_place: whether there are extra tablespaces.
    :returns: the names of the files that were written.
    """
    owner = user or pwd.getpwuid(os.geteuid()).pw_name
    settings = _SETTINGS + _ARCHIVE + (_IN_PLACE if in_place else "")
    if not _may_write(_PACKAGED_SOCKETS, user):
        settings += _SOCKETS.format(directory=directory)
    quoted = '"' + superuser.replace('"', '""') + '"'
    files = {
        "postgresql.conf": settings,
        "pg_hba.conf": _HBA.format(user=owner, superuser=superuser),
        "pg_ident.conf": _IDENT.format(user=owner, superuser=quoted),
    }
    missing = {name: text for name, text in files.items() if not (directory / name).exists()}
    for name, text in missing.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o600)
        hand_to(user, path)
    return list(missing)


def _may_write(directory: Path, user: str | None) -> bool:
    return subprocess.run(["test", "-w", str(directory)], check=False, **as_user(user)).returncode == 0
