"""PostgreSQL's own tools as argument lists, never a shell, and never a password among the arguments.

Connection values reach a tool through the environment variables of libpq
(https://www.postgresql.org/docs/15/libpq-envars.html), which the process list does not show.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, LiteralString, Self

import psycopg
from psycopg.pq import Conninfo

from pv_backup.services.errors import ConfigurationError, ExportFailed

log = logging.getLogger(__name__)

_DEBIAN_BIN_DIR = Path("/usr/lib/postgresql/15/bin")
_PIPE_BYTES = 1024 * 1024
_STDERR_LINES = 40
_TERMINATION_PATIENCE_S = 10.0
_VERSION_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Server:
    """How to reach a PostgreSQL database, and with whose tools.

    :param params: libpq keywords (`host`, `port`, `user`, `password`, `dbname`, `sslmode` …).
    :param bin_dir: where pg_dump and its siblings are; None looks where Debian puts version 15, then on PATH.
    """

    params: Mapping[str, str]
    bin_dir: Path | None = None

    def __repr__(self) -> str:
        return f"Server({self.name})"

    @property
    def database(self) -> str:
        """The database's name."""
        return self.params.get("dbname", "")

    @property
    def name(self) -> str:
        """The server as messages name it, without the password."""
        shown = {key: self.params.get(key, "") for key in ("host", "port", "dbname", "user")}
        return f"{shown['user']}@{shown['host']}:{shown['port']}/{shown['dbname']}"

    def connect(self) -> psycopg.Connection:
        """Open a connection.

        :raises ExportFailed: if the server does not let us in; it may be restarting.
        """
        try:
            return psycopg.connect(
                **{"connect_timeout": "10", "application_name": "pv_backup", **self.params}  # type: ignore[arg-type]
            )
        except psycopg.OperationalError as error:
            raise ExportFailed(
                f"the source {self.name} does not let us in: {str(error).strip().splitlines()[0]}",
                remedy="check that it runs, and the connection pv_backup_source",
            ) from None

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Let the failures of queries read as the source's, so that they are tried again.

        :raises ExportFailed: ERR-47-01.
        """
        try:
            yield
        except psycopg.Error as error:
            raise ExportFailed(
                f"the source {self.name} failed a query: {' '.join(str(error).split())}",
                remedy="look at PostgreSQL's log on the source",
            ) from None

    def environment(self) -> dict[str, str]:
        """A tool's whole environment: nothing of ours but what libpq and the locale need."""
        known = {option.keyword.decode(): option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar}
        passed = {known[key]: value for key, value in self.params.items() if key in known}
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10", **passed}

    def tool(self, name: str) -> str:
        """The path of one of PostgreSQL's programs.

        :raises ConfigurationError: if it is not installed here.
        """
        candidates = [self.bin_dir] if self.bin_dir else [_DEBIAN_BIN_DIR]
        for folder in candidates:
            if (folder / name).exists():
                return str(folder / name)
        found = None if self.bin_dir else shutil.which(name)
        if found is None:
            raise ConfigurationError(
                f"{name} is not on this worker (looked in {', '.join(map(str, candidates))} and on PATH)",
                remedy="apt-get install postgresql-client-15, or set PV_BACKUP_PG_BIN_DIR",
            )
        return found

    def tool_version(self, name: str) -> str:
        """What the tool says of itself, for the manifest.

        :raises ConfigurationError: if it is not installed here, or does not run.
        """
        command = [self.tool(name), "--version"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_VERSION_PATIENCE_S)
        except (OSError, subprocess.SubprocessError) as error:
            said = f": {error.stderr.strip()}" if isinstance(error, subprocess.CalledProcessError) else ""
            raise ConfigurationError(
                f"{command[0]} does not say its version: {error}{said}",
                remedy="run it by hand; install postgresql-client-15 anew, or see what slows this worker",
            ) from None
        return answer.stdout.strip()


def one_row(connection: psycopg.Connection, query: LiteralString, *params: Any) -> tuple[Any, ...]:
    """The row of a query that always has one: no FROM, an aggregate, or a function that returns a single row."""
    row = connection.execute(query, params or None).fetchone()
    assert row is not None  # noqa: S101 - as the query is made
    return row


class ExportProcess:
    """A tool that writes an export to its standard output, and whose exit status decides (SPEC F1.4).

    Use as a context: leaving it early ends the tool.

    :param command: program and arguments.
    :param environment: the whole environment of the tool.
    :param pass_fds: descriptors that the tool inherits under their numbers.
    """

    def __init__(
        self, *, command: Sequence[str], environment: Mapping[str, str], pass_fds: Collection[int] = ()
    ) -> None:
        self._name = Path(command[0]).name
        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        self._stderr_tail: deque[str] = deque(maxlen=_STDERR_LINES)
        self._stderr_reader = threading.Thread(target=self._collect_stderr, name=f"{self._name}-stderr", daemon=True)
        self._stderr_reader.start()
        # Fewer, larger reads: the default 64 KiB pipe costs a context switch per 64 KiB on a busy machine.
        # A user near the kernel's limit for pipes keeps the default, and loses some speed only.
        with suppress(OSError):
            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def pid(self) -> int:
        """The tool's process id."""
        return self._process.pid

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101 - Popen was told PIPE
        return self._process.stdout

    def _collect_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - Popen was told PIPE
        for line in self._process.stderr:
            self._stderr_tail.append(line.decode(errors="replace").rstrip())

    def chunks(self) -> Iterator[bytes]:
        """Yield the output as it comes; the end is only reached if the tool ended well.

        :raises ExportFailed: ERR-47-01, if the tool ended with an error or by a signal.
        """
        descriptor = self._stdout.fileno()
        while chunk := os.read(descriptor, _PIPE_BYTES):
            yield chunk
        self.finish()

    def has_ended(self, *, within_s: float = 0.0) -> bool:
        """Whether the tool is over, well or not, by then at the latest."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def finish(self) -> None:
        """Wait for the tool's end, which must be a good one.

        :raises ExportFailed: ERR-47-01, if the tool ended with an error or by a signal.
        """
        status = self._process.wait()
        self._stderr_reader.join()
        if status != 0:
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            said = "; ".join(self._stderr_tail) or "it said nothing"
            raise ExportFailed(
                f"{self._name} {how}: {said}", remedy="read its message; see PostgreSQL's log on the source"
            )
        for line in self._stderr_tail:
            log.warning("%s: %s", self._name, line)

    def pause(self) -> None:
        """Stop the tool for a while (SIGSTOP): what it writes to files knows no backpressure."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused tool go on."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask the tool to end, without waiting for it: for signal handlers."""
        if self._process.poll() is None:
            self._process.terminate()
            self.resume()  # a paused process does not act on SIGTERM

    def end(self) -> None:
        """End the tool now, kindly at first; one that has ended already is left alone."""
        if self._process.poll() is None:
            self.terminate()
            try:
                self._process.wait(_TERMINATION_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()
        self._stderr_reader.join()
        self._stdout.close()
