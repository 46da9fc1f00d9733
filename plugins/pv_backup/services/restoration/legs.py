"""The two legs of a drill: restore in a sandbox, look at what came back, and report it, also what failed (SPEC F4)."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from platform import python_version
from typing import Any, ClassVar, Final

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.drill import LATEST, DrillOrder
from pv_backup.services.errors import NotPublished, RestoreFailed, TargetRefused
from pv_backup.services.evidence.document import (
    NEXT,
    PG_AMCHECK,
    Check,
    Failure,
    Leg,
    LegReport,
    Result,
    Used,
    Verdict,
    broken,
)
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.postgres import Server, one_row
from pv_backup.services.restoration.amcheck import amcheck
from pv_backup.services.restoration.asking import asking
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.cluster import ClusterRestore
from pv_backup.services.restoration.comparison import compare_row_counts
from pv_backup.services.restoration.contract import run_contract, run_contract_everywhere
from pv_backup.services.restoration.dump import DumpRestore
from pv_backup.services.restoration.dump_choice import choose_dump
from pv_backup.services.restoration.fitness import demand_fit
from pv_backup.services.restoration.route import Route
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.server import RestoredServer
from pv_backup.services.restoration.steps import told_to
from pv_backup.services.row_counts import Counted, count_rows
from pv_backup.services.timestamps import rfc3339

log = logging.getLogger(__name__)

_PROGRAMS: Final = {
    Leg.LOGICAL: ("postgres", "pg_restore", "pg_amcheck"),
    Leg.PHYSICAL: ("postgres", "pg_verifybackup", "pg_amcheck"),
}


@dataclass(frozen=True)
class LegTools:
    """What a leg works with: bucket, key, PostgreSQL's programs, and room on this worker.

    :ivar contract: the directory of the contract checks.
    :ivar staging: where to restore; None takes the worker's temporary directory.
    """

    store: ObjectStore
    keys: KeyWrapper
    tools: Server
    contract: Path
    staging: Path | None


class DrillLeg(ABC):
    """One way back. It collects what it learns as it goes, so that a failure can be reported with all that was seen.

    :param tools: what to work with.
    """

    leg: ClassVar[Leg]

    def __init__(self, tools: LegTools) -> None:
        self.tools = tools
        self._began_at = rfc3339(datetime.now(UTC))
        self._began = time.monotonic()
        self._facts: dict[str, Any] = {}
        self._checks: list[Check] = []

    def run(self, order: DrillOrder) -> LegReport:
        """Restore, check, and leave nothing behind.

        :raises PvBackupError: by which it failed; :meth:`report` then says how far it came.
        """
        with told_to(self._note_step), Sandbox(self.tools.staging) as sandbox:
            self._restore(order, sandbox)
        failed = self._failed_check()
        if failed is not None:
            raise broken(failed)
        return self.report(order)

    def report(self, order: DrillOrder, error: BaseException | None = None) -> LegReport:
        """What is known of the leg by now.

        :param error: by which it failed.
        """
        failed = self._failed_check()
        failure = Failure.of_check(failed) if failed else Failure.of(error) if error else None
        return LegReport(
            leg=self.leg,
            verdict=Verdict.FAILED if failure else Verdict.PASSED,
            started_at=self._began_at,
            finished_at=rfc3339(datetime.now(UTC)),
            checks=self._checks,
            failure=failure,
            versions=self._versions(),
            **self._facts,
        )

    @abstractmethod
    def _restore(self, order: DrillOrder, sandbox: Sandbox) -> None:
        """Bring the data back and check it, noting facts and checks."""

    def _note_step(self, name: str, seconds: float) -> None:
        self._checks.append(Check(name=name, result=Result.PASSED, seconds=seconds))

    def _note_reached(self, order: DrillOrder, reached: datetime) -> None:
        """The server answers queries: how long that took, and how old is what it holds."""
        self._facts |= {
            "reached_at": rfc3339(reached),
            "rto_s": round(time.monotonic() - self._began, 3),
            "rpo_s": round(max(0.0, (order.moment - reached).total_seconds()), 3),
        }

    def _note_used(self, *manifests: Manifest | None) -> None:
        self._facts["artefacts"] = [
            Used(
                key=manifest.key,
                backup_id=manifest.backup_id,
                hash_sha3_256=manifest.hash_sha3_256,
                size_bytes=manifest.size_bytes,
                k_backup_version=manifest.k_backup_version,
                exported_at=manifest.exported_at,
            )
            for manifest in manifests
            if manifest
        ]

    def _count(self, server: RestoredServer, database: str) -> Counted | None:
        """Note the rows by table; that they can't be counted is a finding, and pg_amcheck may say why."""
        try:
            counted = count_rows(server.server(database))
        except RestoreFailed as error:
            words = [error.what, demand_fit(server)(error.what), f"{NEXT} {error.remedy}"]
            detail = "\n".join(filter(None, words))
            self._checks.append(Check(name="row_counts", result=Result.FAILED, seconds=0.0, detail=detail))
            return None
        self._facts["row_counts"] = counted.logged
        return counted

    def _failed_check(self) -> Check | None:
        """The one that names the incident: where pages are broken, they are why the other checks failed."""
        failed = [check for check in self._checks if check.result is Result.FAILED]
        failed.sort(key=lambda check: not check.name.startswith(PG_AMCHECK))
        return failed[0] if failed else None

    def _versions(self) -> dict[str, str]:
        """Of the programs; a worker that lacks one has failed already, and must be able to report that."""
        versions = {"python": python_version()}
        for name in _PROGRAMS[self.leg]:
            try:
                versions[name] = self.tools.tools.tool_version(name)
            except Exception as error:  # noqa: BLE001 - no version may hide how the leg ended
                log.warning("the version of %s is not known: %s", name, error)
                versions[name] = "not known"
        return versions


class LogicalLeg(DrillLeg):
    """Roles and dump into a throw-away server, by psql and pg_restore."""

    leg = Leg.LOGICAL

    def _restore(self, order: DrillOrder, sandbox: Sandbox) -> None:
        tools = self.tools
        backups = published_backups(tools.store, (ArtefactType.PG_DUMP, ArtefactType.GLOBALS))
        dump, roles = choose_dump(backups, None if order.target == LATEST else order.moment)
        self._note_used(roles, dump)
        self._facts["system_identifier"] = dump.system_identifier
        engine = DumpRestore(store=tools.store, keys=tools.keys, tools=tools.tools, sandbox=sandbox)
        with engine.restored(dump, roles) as (server, restored):
            self._note_reached(order, datetime.fromisoformat(dump.exported_at))
            database = server.server(restored.database)
            for check in run_contract(database, tools.contract, unanswered=demand_fit(server)):
                self._checks.append(check)
            counted = self._count(server, restored.database)
            if counted is not None:
                self._checks.append(compare_row_counts(counted.rows, dump))
            self._checks.append(amcheck(database, unanswered=demand_fit(server)))


class PhysicalLeg(DrillLeg):
    """Base backup and WAL into a throw-away server, by recovery to the target."""

    leg = Leg.PHYSICAL

    def plan(self, order: DrillOrder) -> Route:
        """The way to the target, without taking it.

        :raises TargetAhead: if the target is later than the last shipped commit.
        :raises NotPublished, TargetRefused, WalGap, IntegrityError: naming what is wrong.
        """
        with Sandbox(self.tools.staging) as sandbox:
            return self._engine(sandbox).plan(order.recovery_target)

    def _restore(self, order: DrillOrder, sandbox: Sandbox) -> None:
        engine = self._engine(sandbox)
        route = engine.plan(order.recovery_target)
        base = route.base.manifest
        self._note_used(base)
        with engine.recovered(order.recovery_target, route=route) as (server, restored):
            self._note_reached(order, restored.reached_at)
            self._facts |= {
                "wal_files": restored.wal_files,
                "timeline": restored.timeline,
                "reached_lsn": restored.lsn,
            }
            self._check_identity(server, base)
            self._check_databases(server, order)

    def _check_identity(self, server: RestoredServer, base: Manifest) -> None:
        began = time.monotonic()
        with asking(
            server.server(),
            failing="the restored server does not tell its system identifier",
            remedy="see its log",
            unanswered=demand_fit(server),
        ) as connection:
            (identifier,) = one_row(connection, "SELECT system_identifier::text FROM pg_control_system()")
        self._facts["system_identifier"] = identifier
        same = identifier == base.system_identifier
        self._checks.append(
            Check(
                name="system_identifier",
                result=Result.PASSED if same else Result.FAILED,
                seconds=round(time.monotonic() - began, 3),
                detail=identifier if same else f"the server says {identifier}, the manifest {base.system_identifier}",
            )
        )

    def _check_databases(self, server: RestoredServer, order: DrillOrder) -> None:
        """The contract in the database that is dumped, where one is, and its default part everywhere."""
        database = self._dumped_database(order)
        contract = self.tools.contract
        for check in run_contract_everywhere(server.server, contract, database, unanswered=demand_fit(server)):
            self._checks.append(check)
        if database is not None:
            self._count(server, database)
        self._checks.append(amcheck(server.server(), everywhere=True, unanswered=demand_fit(server)))

    def _dumped_database(self, order: DrillOrder) -> str | None:
        """The one that the logical leg restores; None where nothing was dumped before the target."""
        backups = published_backups(self.tools.store, (ArtefactType.PG_DUMP,))
        try:
            dump, _ = choose_dump(backups, None if order.target == LATEST else order.moment)
        except (NotPublished, TargetRefused) as error:
            log.warning("only the default checks are run: %s", error.what)
            return None
        return dump.database

    def _engine(self, sandbox: Sandbox) -> ClusterRestore:
        tools = self.tools
        return ClusterRestore(
            store=tools.store, keys=tools.keys, tools=tools.tools, directory=sandbox.data, sandbox=sandbox
        )
