"""One run of WAL shipping: close, list, look for holes, ship many at once, say how it went (SPEC F2)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Final

from pv_backup.services.errors import IntegrityError, PvBackupError, WalDamaged
from pv_backup.services.part_sizes import MEBIBYTE
from pv_backup.services.progress import REPORT_EVERY_S, Ticker
from pv_backup.services.wal_closing import SegmentCloser
from pv_backup.services.wal_sequence import WalSequence
from pv_backup.services.wal_shipping import Fate, Shipment, WalShipper
from pv_backup.services.wal_spool import WalFile, WalSpool
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)

#: Seconds that a run goes on taking files; the next run goes on with the rest, and people see it move.
TAKE_FOR_S: Final = 300.0
#: Seconds that a run waits for S3; the files wait in the directory, and the next run is a minute away.
S3_PATIENCE_S: Final = 30.0
# A file in work holds its compressed bytes and its object's, at worst as large as itself.
_MEMORY_BYTES: Final = 512 * MEBIBYTE
_COPIES: Final = 3


@dataclass(frozen=True)
class Problem:
    """Something that a person must hear of, once.

    :ivar subject: the file that it is about; empty for an outage, which is about all of them.
    """

    error: PvBackupError
    subject: str = ""


@dataclass
class WalReport:
    """How a run went.

    :ivar read_bytes: of the files that left the directory; stored_bytes: of their objects.
    :ivar backlog: finished files still in the directory; oldest_s: seconds since the oldest was finished.
    """

    closed: str | None = None
    shipped: int = 0
    already_there: int = 0
    replaced: int = 0
    read_bytes: int = 0
    stored_bytes: int = 0
    seconds: float = 0.0
    backlog: int = 0
    oldest_s: float = 0.0
    problems: list[Problem] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Files that left the directory."""
        return self.shipped + self.already_there + self.replaced

    @property
    def rate(self) -> float:
        """Files per second."""
        return self.done / max(self.seconds, 1e-9)

    def add(self, shipment: Shipment) -> None:
        """Count a file that is out of the queue."""
        match shipment.fate:
            case Fate.SHIPPED:
                self.shipped += 1
            case Fate.ALREADY_THERE:
                self.already_there += 1
            case Fate.REPLACED:
                self.replaced += 1
        self.read_bytes += shipment.file.size
        self.stored_bytes += shipment.size_bytes


class WalRun:
    """Ships what is in the directory when it starts, oldest first.

    :param closer: closes the open segment first; None where no source is at hand.
    :param tell: hears of each problem when it is found: a hole cannot be seen any more once what follows it is
        shipped, so the news must not wait for the end of a run that may be killed.
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
    ) -> None:
        self._bench = replace(bench, store=bench.store.patient_for(S3_PATIENCE_S))
        self._spool = spool
        self._closer = closer
        self._tell = tell
        self._take_for_s = take_for_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Take no further file, from any thread; those in work are finished."""
        self._stopped.set()

    def run(self) -> WalReport:
        """Ship, and report every problem rather than stop at the first; what failed waits in the directory.

        :raises RunAlive: if another process ships out of this directory.
        :raises ConfigurationError: if the directory can't be used.
        """
        report, started = WalReport(), time.monotonic()
        with self._spool.locked():
            self._noting(report, lambda: self._close(report))
            files = self._spool.files()
            shipping = time.monotonic()
            self._noting(report, lambda: self._ship_all(files, report, until=started + self._take_for_s))
            report.seconds = time.monotonic() - shipping
            self._look_back(report)
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

    def _noting(self, report: WalReport, work: Callable[[], None]) -> None:
        """Let an outage of one server not keep the others from being used."""
        try:
            work()
        except PvBackupError as error:
            self._add_problem(report, Problem(error))

    def _add_problem(self, report: WalReport, problem: Problem) -> None:
        log.error("%s", ": ".join(part for part in (problem.subject, str(problem.error)) if part))
        report.problems.append(problem)
        if self._tell is not None:
            self._tell(problem)

    def _close(self, report: WalReport) -> None:
        if self._closer is not None:
            report.closed = self._closer.close_if_due()

    def _ship_all(self, files: Sequence[WalFile], report: WalReport, *, until: float) -> None:
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
        sequence = WalSequence(store=self._bench.store, keys=self._bench.keys, spool=self._spool, header=header)
        present = sequence.present(files)
        for subject, error in sequence.breaks(files):
            self._add_problem(report, Problem(error, subject))
        shipper = WalShipper(bench=self._bench, spool=self._spool, system_identifier=header.system_identifier)
        workers = min(self._bench.settings.wal_parallelism, max(1, _MEMORY_BYTES // (_COPIES * header.segment_bytes)))

        def waiting() -> Iterator[WalFile]:
            for file in files:
                if self._stopped.is_set() or time.monotonic() > until:
                    return
                yield file

        def say() -> None:
            log.info("WAL: %d of %d files out of the directory", report.done, len(files))

        with (
            Ticker(every_s=REPORT_EVERY_S, action=say, name="WAL progress"),
            ThreadPoolExecutor(workers, thread_name_prefix="wal") as pool,
        ):
            self._drain(
                waiting(),
                lambda file: pool.submit(shipper.ship, file, expected_there=file.name in present),
                report,
                workers=workers,
            )

    def _drain(
        self,
        waiting: Iterator[WalFile],
        submit: Callable[[WalFile], Future[Shipment]],
        report: WalReport,
        *,
        workers: int,
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
                    shipment = future.result()
                    report.add(shipment)
                    if shipment.damage is not None:
                        self._add_problem(report, Problem(shipment.damage, file.name))
                except IntegrityError as error:
                    self._add_problem(report, Problem(error, file.name))
                except PvBackupError as error:
                    outage = outage or error
        if outage is not None:
            raise outage

    def _look_back(self, report: WalReport) -> None:
        left = self._spool.files()
        report.backlog = len(left)
        report.oldest_s = time.time() - min(file.finished_at for file in left) if left else 0.0
