"""One run of WAL shipping: close, list, look for holes, ship many at once, say how it went (SPEC F2)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Final

from pv_backup.services.errors import ExportFailed, IntegrityError, PvBackupError, WalDamaged
from pv_backup.services.part_sizes import MEBIBYTE
from pv_backup.services.progress import REPORT_EVERY_S, Ticker
from pv_backup.services.wal_closing import SegmentCloser
from pv_backup.services.wal_report import Problem, WalReport
from pv_backup.services.wal_sequence import WalSequence
from pv_backup.services.wal_shipping import Shipment, WalShipper
from pv_backup.services.wal_spool import SegmentHeader, WalFile, WalSpool
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)

#: Seconds that a run goes on taking files; the next run goes on with the rest, and people see it move.
TAKE_FOR_S: Final = 300.0
#: Seconds that a run waits for S3; the files wait in the directory, and the next run is a minute away.
S3_PATIENCE_S: Final = 30.0
#: Seconds that a run waits for the source, after all that was there is shipped.
SOURCE_PATIENCE_S: Final = 45.0
# A file in work is in memory as it is, compressed and encrypted.
_MEMORY_BYTES: Final = 512 * MEBIBYTE
_COPIES: Final = 3
# Files that an earlier run had to keep are looked at again, a few a run, when all others are shipped.
_KEPT: Final = "kept"
_KEPT_AGAIN: Final = 20


class WalRun:
    """Ships what is in the directory, oldest first, and what the closing of the open segment adds to it.

    :param closer: closes the open segment meanwhile; None where no source is at hand.
    :param tell: hears of each problem when it is found.
    :param take_for_s: seconds after which no further file is taken.
    """

    def __init__(
        self,
        *,
        bench: Workbench,
        spool: WalSpool,
        closer: SegmentCloser | None,
        tell: Callable[[Problem], None] | None = None,
        take_for_s: float = TAKE_FOR_S,
        source_patience_s: float = SOURCE_PATIENCE_S,
    ) -> None:
        self._bench = replace(bench, store=bench.store.patient_for(S3_PATIENCE_S))
        self._spool = spool
        self._closer = closer
        self._report = WalReport(tell=tell)
        self._take_for_s = take_for_s
        self._source_patience_s = source_patience_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Take no further file, from any thread; those in work are finished."""
        self._stopped.set()

    def run(self) -> WalReport:
        """Ship, and report every problem rather than stop at the first; what failed waits in the directory.

        :raises RunAlive: if another process ships out of this directory.
        :raises ConfigurationError: if the directory can't be used.
        """
        report, until = self._report, time.monotonic() + self._take_for_s
        with self._spool.locked():
            for fault in self._spool.faults():
                report.found(Problem(fault, "directory"))
            files = self._spool.files()
            names = {file.name for file in files}
            closing = _Aside(partial(self._closer.close_if_due, listed=names)) if self._closer else None
            can_ship = self._noting(lambda: self._ship_all(self._in_turn(files), until=until))
            self._noting(lambda: self._await_closing(closing))
            if can_ship:
                added = [file for file in self._spool.files() if file.name not in names]
                self._noting(lambda: self._ship_all(added, until=until))
            report.tell_the_rest()
            self._look_back()
        log.info(
            "WAL: %d files out of the directory in %.1f s (%.1f/s), %d waiting, the oldest for %.0f s, %d problems",
            report.done,
            report.seconds,
            report.rate,
            report.backlog,
            report.oldest_s,
            len(report.problems),
        )
        return report

    def _noting(self, work: Callable[[], None]) -> bool:
        """Let an outage of one server not keep the others from being used; False if there was one."""
        try:
            work()
        except PvBackupError as error:
            self._report.found(Problem(error))
            return False
        return True

    def _await_closing(self, closing: _Aside | None) -> None:
        if closing is not None:
            self._report.closed = closing.result(self._source_patience_s)
            self._report.source_seen = True

    def _in_turn(self, files: Sequence[WalFile]) -> list[WalFile]:
        """All files, but of those that an earlier run had to keep only a few, and last."""
        kept = set(self._spool.read_note(_KEPT) or ())
        again = [file for file in files if file.name in kept][:_KEPT_AGAIN]
        return [file for file in files if file.name not in kept] + again

    def _ship_all(self, files: Sequence[WalFile], *, until: float) -> None:
        if not files:
            return
        header = self._spool.any_header()
        if header is None:
            if not any(file.segment for file in files):
                log.info("histories wait for a segment, which tells whose they are")
                return
            raise WalDamaged(
                f"none of the segments in {self._spool.directory} can be read, so nobody knows whose WAL this is",
                remedy="keep the directory for inspection, and look at pg_receivewal's log",
            )
        started = time.monotonic()
        sequence = WalSequence(store=self._bench.store, keys=self._bench.keys, spool=self._spool, header=header)
        present = sequence.present(files)
        for subject, error in sequence.breaks(files):
            self._report.found(Problem(error, subject))
        shipper = WalShipper(bench=self._bench, spool=self._spool, system_identifier=header.system_identifier)
        workers = self._workers(header)

        def waiting() -> Iterator[WalFile]:
            for file in files:
                if self._stopped.is_set() or time.monotonic() > until:
                    return
                yield file

        def say() -> None:
            log.info("WAL: %d of %d files out of the directory", self._report.done, len(files))

        try:
            with (
                Ticker(every_s=REPORT_EVERY_S, action=say, name="WAL progress"),
                ThreadPoolExecutor(workers, thread_name_prefix="wal") as pool,
            ):
                self._drain(
                    waiting(),
                    lambda file: pool.submit(shipper.ship, file, expected_there=file.name in present),
                    workers=workers,
                )
        finally:
            self._report.seconds += time.monotonic() - started

    def _workers(self, header: SegmentHeader) -> int:
        wanted = self._bench.settings.wal_parallelism
        workers = min(wanted, max(1, _MEMORY_BYTES // (_COPIES * header.segment_bytes)))
        if workers < wanted:
            log.warning(
                "wal_parallelism is %d; %d segments of %d MiB at once are what %d MiB of memory are for",
                wanted,
                workers,
                header.segment_bytes // MEBIBYTE,
                _MEMORY_BYTES // MEBIBYTE,
            )
        return workers

    def _drain(
        self, waiting: Iterator[WalFile], submit: Callable[[WalFile], Future[Shipment]], *, workers: int
    ) -> None:
        """Keep every worker busy with one file, and no further file in memory.

        :raises PvBackupError: the first error that is not about its one file: no other would fare better.
        """
        at_work: dict[Future[Shipment], WalFile] = {}
        outage: PvBackupError | None = None
        while True:
            while outage is None and len(at_work) < workers and (file := next(waiting, None)):
                at_work[submit(file)] = file
            if not at_work:
                break
            done, _ = wait(at_work, return_when=FIRST_COMPLETED)
            for future in done:
                file = at_work.pop(future)
                try:
                    self._report.count(future.result())
                except IntegrityError as error:
                    self._report.found(Problem(error, file.name))
                except PvBackupError as error:
                    outage = outage or error
        if outage is not None:
            raise outage

    def _look_back(self) -> None:
        left = self._spool.files()
        self._report.backlog = len(left)
        self._report.oldest_s = max(0.0, time.time() - min(file.finished_at for file in left)) if left else 0.0
        self._note_kept({file.name for file in left})

    def _note_kept(self, left: set[str]) -> None:
        before = set(self._spool.read_note(_KEPT) or ())
        refused = {problem.subject for problem in self._report.problems if problem.subject}
        if (kept := sorted((before | refused) & left)) != sorted(before):
            self._spool.write_note(_KEPT, kept)


class _Aside:
    """Work that must not keep the files waiting, in a thread that the end of the process does not wait for."""

    def __init__(self, work: Callable[[], str | None]) -> None:
        self._work = work
        self._result: str | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="closing", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except Exception as error:  # noqa: BLE001 - handed over, whatever it is
            self._error = error

    def result(self, patience_s: float) -> str | None:
        """What the work gave.

        :raises ExportFailed: if it is not done in time.
        """
        self._thread.join(patience_s)
        if self._thread.is_alive():
            raise ExportFailed(
                f"the source has not answered for {patience_s:.0f} s; its open segment is not closed",
                remedy="look at PostgreSQL and the disk of the source; what was received is shipped all the same",
            )
        if self._error is not None:
            raise self._error
        return self._result
