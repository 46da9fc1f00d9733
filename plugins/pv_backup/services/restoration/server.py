"""A PostgreSQL server on a restored data directory, which nobody but us can reach."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg

from pv_backup.services.errors import RestoreFailed
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.discretion import told
from pv_backup.services.restoration.said import Tail
from pv_backup.services.restoration.session import session_options
from pv_backup.services.restoration.tools import Place, Started, hand_to, run_as, start, unwatched
from pv_backup.services.restoration.way_in import find_way_in, is_locked_out, may_pass
from pv_backup.services.restoration.writing import writing

log = logging.getLogger(__name__)

SUPERUSER: Final = "postgres"
_PORT: Final = "5432"
# Nearly every cluster has it; `postgres` may have been dropped, or be what is restored.
_DATABASE: Final = "template1"
_LOOK_EVERY_S: Final = 0.05
_STOP_PATIENCE_S: Final = 120
_QUIT_PATIENCE_S: Final = 10
# A server that is up and refuses us does so for good, unless the machine lacks something for a moment.
_REFUSED_S: Final = 10
_LAST_WORDS_S: Final = 1

# The cluster's own settings must neither reach the outside (archiving) nor hang on files that are not here.
_APART: Final = {
    "listen_addresses": "",
    "port": _PORT,
    "ssl": "off",
    "archive_mode": "off",
    "shared_preload_libraries": "",
    "hot_standby": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "autovacuum": "off",
    # Whoever waits for an answer shall learn that there will be none.
    "restart_after_crash": "off",
    "max_prepared_transactions": "1000",
    # A subscription would go on consuming its publisher's slot, which belongs to the source.
    "max_logical_replication_workers": "0",
    "allow_in_place_tablespaces": "on",
    # Shared memory that a killed server would leave behind goes with the directory.
    "dynamic_shared_memory_type": "mmap",
    # What was restored is synced once, at the end (initdb --sync-only), or thrown away.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


class RestoredServer:
    """Starts PostgreSQL on a data directory and stops it again; a context.

    It listens on a socket in a private directory only, whose owner alone is let in.

    :param data: the data directory.
    :param tools: whose `postgres` to run.
    :param settings: server parameters of this recovery.
    :param home: for socket and configuration, not there yet; None makes one in the temporary directory.
    :param started: is told of the server's pid before it begins.
    :param place: the disk that it fills, None: that of the data directory.
    :ivar superuser: who connects; another one if the cluster does not let that one in.
    :ivar database: where to, if it does not matter: `template1`, or another one if that is closed.
    """

    def __init__(
        self,
        *,
        data: Path,
        tools: Server,
        settings: Mapping[str, str],
        home: Path | None = None,
        started: Started = unwatched,
        place: Place | None = None,
        superuser: str = SUPERUSER,
    ) -> None:
        self._data = data
        self._tools = tools
        self._user = run_as()
        self._settings = settings
        self._home = home
        self._started = started
        self._place = place or Place(data)
        self._home_place = self._place if home else Place(Path(tempfile.gettempdir()))
        self.superuser = superuser
        self.database = _DATABASE
        self._knows_way_in = False
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Tail | None = None
        self._earlier = ""

    def server(self, database: str | None = None) -> Server:
        """How tools and checks reach one of its databases, as superuser; None: one that lets us in."""
        params = {"host": str(self._home), "port": _PORT, "user": self.superuser}
        params["dbname"] = self.database if database is None else database
        params["options"] = session_options()
        return Server(params, self._tools.bin_dir)

    def connect(self, database: str | None = None) -> psycopg.Connection:
        """A connection of the superuser."""
        return psycopg.connect(**self.server(database).params, autocommit=True)  # type: ignore[arg-type]

    @property
    def log_text(self) -> str:
        """The end of what the server said: where recovery began, which files it read, why it stopped."""
        return self._earlier + (self._log.text if self._log else "")

    def start(self) -> None:
        """Start the server; recovery goes on in it.

        :raises ConfigurationError: if there is no PostgreSQL here.
        :raises RestoreFailed: (StagingFull in a staging directory) if the disk has no room for its configuration.
        """
        self._process = start(
            self._command(),
            environment=self._environment(),
            user=self._user,
            started=self._started,
            output=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdin is not None  # noqa: S101 - as start() makes it
        assert self._process.stdout is not None  # noqa: S101 - Popen was told PIPE
        self._process.stdin.close()
        # Kept in memory: a log on a disk that is full would not say so.
        self._log = Tail(self._process.stdout, name="postgres")

    def _command(self, *mode: str) -> list[str]:
        with writing("the server's configuration", self._home_place):
            home = self._home = self._home or Path(tempfile.mkdtemp(prefix="pv-backup-server-"))
            home.mkdir(mode=0o700, exist_ok=True)
            files = {"config_file": "postgresql.conf", "hba_file": "pg_hba.conf", "ident_file": "pg_ident.conf"}
            for name in files.values():
                (home / name).write_text("local all all trust\n" if name == "pg_hba.conf" else "")
            hand_to(self._user, home, *home.iterdir())
        own = {parameter: str(home / name) for parameter, name in files.items()}
        own["unix_socket_directories"] = str(home)
        settings = _APART | dict(self._settings) | own
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._tools.tool("postgres"), *mode, "-D", str(self._data), *options]

    @staticmethod
    def _environment() -> dict[str, str]:
        return Server({}).environment() | {"TZ": "UTC"}

    def wait_until_recovered(self) -> None:
        """Wait until recovery, if any, has ended and a superuser's queries are answered, however long it takes.

        :raises RestoreFailed: if the server ends instead, with the end of its log; or refuses us, in its words.
        """
        refused_at: float | None = None
        while self._running.poll() is None:
            try:
                if self._answers():
                    return
                refused_at = None
            except psycopg.OperationalError as error:
                if may_pass(error):
                    refused_at = None
                elif is_locked_out(error) and not self._knows_way_in:
                    self._take_another_way_in()
                else:
                    refused_at = refused_at or time.monotonic()
                    if time.monotonic() - refused_at > _REFUSED_S:
                        raise self._refused(error) from None
            except psycopg.Error as error:
                raise self.failed_query(error) from None
            time.sleep(_LOOK_EVERY_S)
        ended = RestoreFailed(
            "PostgreSQL ended before it answered queries",
            remedy="its log names what it missed; the bucket is unchanged, restore again into an empty directory",
        )
        raise self.explained(ended)

    def _answers(self) -> bool:
        with self.connect() as connection:
            row = connection.execute("SELECT pg_is_in_recovery(), current_setting('is_superuser') = 'on'").fetchone()
        if row == (False, False):
            self._take_another_way_in()
        return row == (False, True)

    def _take_another_way_in(self) -> None:
        self.stop()
        self._earlier = self.log_text
        found = find_way_in(self._command("--single"), environment=self._environment(), user=self._user)
        self.superuser, self.database = found.superuser, found.database
        self._knows_way_in = True
        log.info("the cluster lets its superuser %s into the database %s", found.superuser, found.database)
        self.start()

    def _refused(self, error: psycopg.Error) -> RestoreFailed:
        refused = RestoreFailed(
            f"the restored server is up and refuses us: {told(error)}",
            remedy="if it names a page or a file that can't be read, that was broken on the source already: run "
            "pg_amcheck there today, and restore to a time before it broke; else see its log. The bucket is unchanged",
        )
        return self.explained(refused)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None  # noqa: S101 - started by the caller
        return self._process

    def failed_query(self, error: psycopg.Error) -> RestoreFailed:
        """A query of ours that every whole cluster answers."""
        failed = RestoreFailed(
            f"the restored server failed a query: {told(error)}",
            remedy="its log says why; the bucket is unchanged, restore again into an empty directory",
        )
        return self.explained(failed)

    def explained(self, error: RestoreFailed) -> RestoreFailed:
        """The same failure with what only the server knows: that its disk is full, or why it ended."""
        what = error.what
        assert self._log is not None  # noqa: S101 - started by the caller
        if self.is_unfit():
            what += f"; the end of the server's log:\n{self._log.last()}"
        return self._place.full(what) if self.has_no_room else RestoreFailed(what, remedy=error.remedy)

    @property
    def has_no_room(self) -> bool:
        """Whether it ever said that its disk is full."""
        return self._log is not None and self._log.no_room

    def is_unfit(self, patience_s: float = _LAST_WORDS_S) -> bool:
        """Whether it ended, within that time even, or has no room on its disk."""
        assert self._log is not None  # noqa: S101 - started by the caller
        with suppress(subprocess.TimeoutExpired):  # who lost a connection may know before us
            self._running.wait(patience_s)
            self._log.end(_QUIT_PATIENCE_S)
        return self._running.poll() is not None or self.has_no_room

    def stop(self) -> None:
        """Shut down in order, so that the directory is a clean cluster.

        :raises RestoreFailed: if it does not end.
        """
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise RestoreFailed(
                f"the restored server did not stop in {_STOP_PATIENCE_S} s",
                remedy="see what it does: a disk that hangs? Then restore again",
            ) from None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        """Leave neither process nor file."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(_QUIT_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._log is not None:
            self._log.end(_QUIT_PATIENCE_S)
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
