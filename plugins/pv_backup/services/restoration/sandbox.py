"""Where a drill restores: a directory that nobody else can read, and that is gone however the drill ends (SPEC F4)."""

from __future__ import annotations

import os
import pwd
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pv_backup.services.errors import ConfigurationError, RestoreFailed
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.server import SUPERUSER, RestoredServer
from pv_backup.services.restoration.tools import Place, ToolRunner, hand_to, passes, run_as
from pv_backup.services.restoration.writing import writing
from pv_backup.services.settings import CLEARTEXT_TTL_S
from pv_backup.services.staging import StagingDirectory
from pv_backup.services.staging_guard import TOOLS_FILE, started_at

_DATA: Final = "data"
_HOME: Final = "run"
# sun_path of unix(7), less its final zero.
_SOCKET_PATH_BYTES: Final = 107
_SOCKET: Final = ".s.PGSQL.5432"
#: A server in here works until it is told to stop, which a stopped worker never does. A leg may last 20 h.
LIMIT_S: Final = 24 * 3600.0


class Sandbox:
    """A staging directory with servers in it; a context.

    The guard ends the tools that it is told of, with all that they started, and purges the directory at our death,
    however we die, when 300 s passed without any of them, and :data:`LIMIT_S` after the beginning at the latest
    (INV-47-01).

    :param base: where to make it, the setting `staging_directory`; None takes the worker's temporary directory.
    :ivar path: PostgreSQL's user may pass through it, and list nothing.
    :ivar user: that user, None if it is ourselves.
    """

    def __init__(self, base: Path | None, *, ttl_s: float = CLEARTEXT_TTL_S, limit_s: float = LIMIT_S) -> None:
        self._base = base or Path(tempfile.gettempdir())
        self._staging = StagingDirectory(base=self._base, ttl_s=ttl_s, limit_s=limit_s, unguarded=RestoreFailed)
        self.user: str | None = None

    @property
    def path(self) -> Path:
        """The directory."""
        return self._staging.path

    @property
    def data(self) -> Path:
        """Where the data directory belongs; not there yet."""
        return self.path / _DATA

    @property
    def home(self) -> Path:
        """Where the server's socket and configuration belong; not there yet."""
        return self.path / _HOME

    @property
    def place(self) -> Place:
        """The disk that it fills."""
        return Place(self.path, is_staging=True)

    def __enter__(self) -> Self:
        self.user = run_as()
        self._staging.__enter__()
        try:
            if self.user:
                os.chown(self.path, -1, pwd.getpwnam(self.user).pw_gid)
                self.path.chmod(0o710)
                self._demand_passage(self.user)
            self._demand_short_path()
        except BaseException:
            self._staging.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._staging.__exit__(kind, error, tb)

    def watch(self, pid: int) -> None:
        """Have a program end with us.

        :raises RestoreFailed: if there is no guard any more, or no room to write it down.
        """
        self._watch(pid, signal.SIGKILL)

    def watch_server(self, pid: int) -> None:
        """Have a server end with us: told to quit, it takes its children and its shared memory along.

        :raises RestoreFailed: if there is no guard any more, or no room to write it down.
        """
        self._watch(pid, signal.SIGQUIT)

    def _watch(self, pid: int, ending: signal.Signals) -> None:
        # For purge_orphans, should the guard be killed with us.
        with writing("the list of tools", self.place), (self.path / TOOLS_FILE).open("a") as file:
            file.write(f"{pid} {started_at(pid)} {ending:d}\n")
        self._staging.watch(pid, ending)

    def demand_room(self, needed_bytes: int, purpose: str = "the restoration") -> None:
        """Refuse at once what would fail after an hour.

        :raises StagingFull: saying how much is needed and how much is free.
        """
        self.place.demand_room(needed_bytes, purpose)

    def runner(self, tools: Server) -> ToolRunner:
        """Runs programs that end with us."""
        return ToolRunner(tools=tools, place=self.place, user=self.user, started=self.watch)

    def new_server(
        self, tools: Server, *, data: Path, settings: Mapping[str, str], superuser: str = SUPERUSER
    ) -> RestoredServer:
        """A server in here that ends with us, not started yet."""
        return RestoredServer(
            data=data,
            tools=tools,
            settings=settings,
            home=self.home,
            started=self.watch_server,
            place=self.place,
            superuser=superuser,
        )

    @contextmanager
    def folder(self, prefix: str) -> Iterator[Path]:
        """A directory of the tools' user, gone with its context."""
        with writing("a directory", self.place):
            folder = tempfile.TemporaryDirectory(prefix=prefix, dir=self.path, ignore_cleanup_errors=True)
        with folder as name:
            hand_to(self.user, Path(name))
            yield Path(name)

    def _demand_passage(self, user: str) -> None:
        if not passes(user, self.path):
            raise ConfigurationError(
                f"{user}, whom PostgreSQL runs as, can't get to {self._base}: a directory on the way is closed to it",
                remedy="open the way for it (chmod o+x), or set PV_BACKUP_STAGING_DIRECTORY to another directory",
            )

    def _demand_short_path(self) -> None:
        socket = os.fsencode(self.home / _SOCKET)
        if len(socket) > _SOCKET_PATH_BYTES:
            longest = len(os.fsencode(self._base)) - (len(socket) - _SOCKET_PATH_BYTES)
            raise ConfigurationError(
                f"{self._base} is too long a path for a server's socket, which may have {_SOCKET_PATH_BYTES} bytes",
                remedy=f"set PV_BACKUP_STAGING_DIRECTORY to a directory whose path has at most {longest} bytes",
            )
