"""Leave a server running on a restored directory: who has lost everything wants to ask it something first.

It runs by a configuration of its own and not by the cluster's: that one's files may not be here (Debian keeps them in
/etc), and its archive_command would write into the archive that was just restored from. The settings stand on the
command line: PostgreSQL reads the cluster's postgresql.auto.conf (ALTER SYSTEM) after any file of ours, and it would
win (PostgreSQL 15, section 20.1).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pv_backup.services.errors import RestoreFailed
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.tools import as_user, hand_to, run_as

DEFAULT_PORT: Final = 5432

_PATIENCE_S: Final = 600
_TAIL_LINES: Final = 12
# sun_path of unix(7), less the name of the socket in it.
_SOCKET_DIRECTORY_MAX: Final = 107 - len("/.s.PGSQL.65535.lock")

_HBA: Final = """\
# The directory of the socket is open to its owner and to root only; by network, the cluster's own passwords count.
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""
_CONFIGURATION: Final = """\
# Empty: what this server runs by stands on its command line, which goes before the cluster's postgresql.auto.conf.
"""

_APART: Final = {
    # Nothing may leave: neither WAL for an archive that is another server's, nor a subscription's word to its
    # publisher, whose slot may serve another by now.
    "archive_mode": "off",
    "archive_command": "",
    "archive_library": "",
    "max_logical_replication_workers": "0",
    # No standby will ever answer, and each commit would wait for it.
    "synchronous_standby_names": "",
    # What may not be here: libraries, certificates, directories of logs and pid files.
    "shared_preload_libraries": "",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "ssl": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "external_pid_file": "",
    # The target was reached; two of them in the cluster's file would keep the server from starting.
    "recovery_target": "",
    "recovery_target_time": "",
    "recovery_target_lsn": "",
    "recovery_target_name": "",
    "recovery_target_xid": "",
    "allow_in_place_tablespaces": "on",
    # Those that were prepared come back, and their number is not known.
    "max_prepared_transactions": "1000",
}


@dataclass(frozen=True)
class Started:
    """A running server.

    :ivar home: its configuration, log and socket.
    :ivar superuser: who may log in by the socket, without a password.
    :ivar database: that lets it in: psql's own choice, one called like the role, is hardly in any cluster.
    :ivar stop: the command that ends it.
    """

    home: Path
    port: int
    superuser: str
    database: str
    stop: str

    @property
    def psql(self) -> str:
        """The command that asks it something."""
        where = ["-h", str(self.home), "-p", str(self.port)]
        return shlex.join(["psql", *where, "-U", self.superuser, "-d", self.database])


def start_server(tools: Server, directory: Path, *, port: int | None, superuser: str, database: str) -> Started:
    """Start PostgreSQL on a clean cluster and wait until it answers; it outlives us.

    :param port: on 127.0.0.1; None: it listens on its socket only.
    :param superuser: a role of the cluster that may log in.
    :param database: that lets it in.
    :raises RestoreFailed: with the end of its log.
    """
    user = run_as()
    home = _home(directory)
    log = home / "log"
    written = {
        "postgresql.conf": _CONFIGURATION,
        "pg_hba.conf": _HBA,
        "pg_ident.conf": "",
    }
    for name, text in written.items():
        (home / name).write_text(text)
    hand_to(user, home, *home.iterdir())
    # One string: pg_ctl has a shell read it.
    options = shlex.join(word for name, value in _settings(home, port).items() for word in ("-c", f"{name}={value}"))
    command = [tools.tool("pg_ctl"), "start", "--silent", f"--pgdata={directory}", f"--log={log}"]
    command += ["--wait", f"--timeout={_PATIENCE_S}", f"--options={options}"]
    answer = subprocess.run(
        command,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)},
        stdin=subprocess.DEVNULL,
        # Not pipes: the server would keep them open.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        **as_user(user),
    )
    if answer.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]) if log.exists() else "no log"
        raise RestoreFailed(
            f"the cluster in {directory} is restored and clean, but PostgreSQL does not start on it:\n{tail}",
            remedy="its log says why (a port that is taken?); nothing needs to be restored again, start it by hand",
        )
    stop = [tools.tool("pg_ctl"), "stop", "-D", str(directory)]
    return Started(
        home=home,
        port=port or DEFAULT_PORT,
        superuser=superuser,
        database=database,
        stop=shlex.join(["runuser", "-u", user, "--", *stop] if user else stop),
    )


def _settings(home: Path, port: int | None) -> dict[str, str]:
    return _APART | {
        "config_file": str(home / "postgresql.conf"),
        "hba_file": str(home / "pg_hba.conf"),
        "ident_file": str(home / "pg_ident.conf"),
        # A list of names: one with a comma or a space in it stands between quotes.
        "unix_socket_directories": '"' + str(home).replace('"', '""') + '"',
        "listen_addresses": "127.0.0.1" if port else "",
        "port": str(port or DEFAULT_PORT),
    }


def _home(directory: Path) -> Path:
    """A private directory beside the cluster, or in the temporary one where a socket's path would be too long."""
    beside = directory.with_name(f"{directory.name}.server")
    if len(os.fsencode(beside)) > _SOCKET_DIRECTORY_MAX:
        return Path(tempfile.mkdtemp(prefix="pv-backup-server-"))
    beside.mkdir(mode=0o700, exist_ok=True)
    return beside
