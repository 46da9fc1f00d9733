"""One round of reconciliation (SPEC F7): find all that a crash left behind, settle each by itself, hide no failure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import LeaseLost, PvBackupError, RunAlive, StagingLeft, TransitionRefused, WorkerDied
from pv_backup.services.left_behind import LeftBehind, LeftRow
from pv_backup.services.models import JsonValue, Outcome
from pv_backup.services.object_store import OpenUpload
from pv_backup.services.orphan_uploads import abort_orphans
from pv_backup.services.reconciliation import Settlement, settle_dead_run
from pv_backup.services.staging import purge_orphans
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """Something that a person must hear of, once for each row or subject.

    :ivar row: the attempt that ends as FAILED; None for what is no row.
    :ivar subject: what it is about then.
    """

    error: PvBackupError
    row: LeftRow | None = None
    subject: str = ""


@dataclass
class ReconciliationReport:
    """What a round did; rows are named as ``pg_dump/2026-11-22``.

    :ivar succeeded: were settled as SUCCESS; failed: as FAILED, SCHEDULED ones that no run took among them.
    :ivar aborted: keys of the unfinished uploads that were aborted, besides those of the rows above.
    :ivar purged: staging directories that lay on this worker.
    :ivar problems: what kept something from being settled; the next round tries again.
    """

    succeeded: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)
    problems: list[Exception] = field(default_factory=list)


class ReconciliationRun:
    """Looks for all that is left behind; what keeps one thing from being settled does not keep the others.

    :param tell: hears of each finding right before it is dealt with, so that a kill in between can't silence it.
    :param well_again: hears of each row that was settled as SUCCESS.
    :param staging: where workers stage in clear; None: their temporary directory.
    :param second_look_s: how long a run whose lease ran out has to renew it after all, once the journal is back from
        an outage that was longer than the lease: workers try three times a lease.
    """

    def __init__(
        self,
        *,
        bench: Workbench,
        left_behind: LeftBehind,
        tell: Callable[[Finding], None],
        well_again: Callable[[LeftRow], None],
        staging: Path | None,
        second_look_s: float,
    ) -> None:
        self._bench = bench
        self._left_behind = left_behind
        self._tell = tell
        self._well_again = well_again
        self._staging = staging
        self._second_look_s = second_look_s
        self._report = ReconciliationReport()

    def run(self) -> ReconciliationReport:
        """Make the round; it raises nothing, the report has it all."""
        self._report = ReconciliationReport()
        # Reading a published backup back may take an hour, so all else comes first.
        for step in (self._purge_staging, self._fail_never_started, self._abort_orphans, self._settle_dead_runs):
            self._attempt(step)
        return self._report

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (RunAlive, LeaseLost) as answer:
            log.info("left to whoever has it: %s", answer.what)
        except Exception as error:
            log.exception("not settled, the next round tries again")
            self._report.problems.append(error)

    def _purge_staging(self) -> None:
        purge_orphans(self._staging, self._tell_of_staging)

    def _tell_of_staging(self, path: Path) -> None:
        self._report.purged.append(str(path))
        left = StagingLeft(
            f"{path} was left behind in clear and is purged now: a worker and its guard were both killed",
            remedy="see who kills all processes of this worker (a power cut?); its disk may still hold what it was",
        )
        self._tell(Finding(left, subject=path.name))

    def _fail_never_started(self) -> None:
        for row in self._left_behind.never_started(self._bench.settings.scheduled_timeout_s):
            self._attempt(partial(self._fail, row))

    def _fail(self, row: LeftRow) -> None:
        waited = WorkerDied(
            f"{row.name} was scheduled and no run took it for {self._bench.settings.scheduled_timeout_s} s",
            remedy="see whether scheduler and workers run and the DAG is not paused; then trigger the day again",
        )
        self._tell(Finding(waited, row))
        try:
            self._bench.machine.fail(
                row.backup_id,
                error_code=waited.code,
                error_text=waited.what,
                by_reconciliation=True,
                settled=waited.what,
            )
        except TransitionRefused as refused:
            log.info("left to whoever has it: %s", refused.what)
            return
        log.warning("%s settled as %s: %s", row.name, Outcome.FAILED, waited.what)
        self._report.failed.append(row.name)

    def _abort_orphans(self) -> None:
        aborted = abort_orphans(
            self._bench.store,
            self._left_behind,
            timeout_upload_s=self._bench.settings.timeout_upload_s,
            attempt=self._attempt,
        )
        for upload in aborted:
            self._report.aborted.append(upload.key)
            self._attempt(partial(self._record, upload))

    def _record(self, upload: OpenUpload) -> None:
        details: dict[str, JsonValue] = {
            "object_key": upload.key,
            "upload_id": upload.upload_id,
            "open_s": upload.open_for.total_seconds(),
        }
        self._bench.audit.record("upload_aborted", details=details)

    def _settle_dead_runs(self) -> None:
        seen = self._left_behind.dead_runs()
        if not seen:
            return
        time.sleep(self._second_look_s)
        still = self._left_behind.dead_runs()
        # A base backup may take an hour to read back: nothing else waits for it.
        still.sort(key=lambda row: row.artefact_type is ArtefactType.BASEBACKUP)
        for row in [row for row in still if row in seen]:
            self._attempt(partial(self._settle, row))

    def _settle(self, row: LeftRow) -> None:
        def announce(settlement: Settlement) -> None:
            if settlement.failure is not None:
                self._tell(Finding(settlement.failure, row))

        if settle_dead_run(self._bench, row.backup_id, announce).failure is not None:
            self._report.failed.append(row.name)
            return
        self._report.succeeded.append(row.name)
        self._well_again(row)
