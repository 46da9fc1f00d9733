"""The evidence of a drill (SPEC F4.4): what was restored, how long it took, what was checked, and what came of it.

One document a drill, made of plain JSON types; its canonical form (RFC 8785) is what is signed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from pv_backup.services.drill_errors import ContractBroken, CorruptionFound
from pv_backup.services.errors import RestoreFailed, explain
from pv_backup.services.evidence.storable import storable

FORMAT_VERSION: Final = 1

#: The name of the check that reads every page (PostgreSQL's own program).
PG_AMCHECK: Final = "pg_amcheck"
#: In a check's detail, what follows is the next step.
NEXT: Final = "Next:"


class Leg(StrEnum):
    """The two ways back (SPEC F4): a dump can't be rolled forward, a base backup shows nothing of pg_restore."""

    LOGICAL = "logical"
    PHYSICAL = "physical"


class Verdict(StrEnum):
    """Of a drill and of each of its legs."""

    PASSED = "PASSED"
    FAILED = "FAILED"


class Result(StrEnum):
    """Of one check; SKIPPED says in its detail why there was nothing to compare."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, fields: Any) -> Any:
        """Whatever a tool said, the journal and the signature must take it."""
        return storable(fields)

    def to_json(self) -> dict[str, Any]:
        """The part as JSON types, absent fields left out."""
        return self.model_dump(mode="json", exclude_none=True)


class Check(_Part):
    """One thing that was looked at.

    :ivar name: such as `pg_amcheck` or `contract/sequences_ahead (evidence)`.
    :ivar seconds: how long it took.
    :ivar detail: what was found, or what was counted; one line for each finding.
    """

    name: str
    result: Result
    seconds: float
    detail: str = ""


def broken(check: Check) -> RestoreFailed:
    """The error that a failed check is: its detail says what was found, and after `Next:` what to do."""
    found, _, remedy = check.detail.partition(NEXT)
    what = f"{check.name}: {found.strip()}"
    if check.name.startswith(PG_AMCHECK):
        return CorruptionFound(what, remedy=remedy.strip() or "run pg_amcheck on the source, and repair it there")
    return ContractBroken(what, remedy=remedy.strip() or "see whether the source has it too, and mend it there")


class Failure(_Part):
    """Why a leg or a drill failed, as its incident names it.

    :ivar check: the check that failed, None where it did not come to one.
    """

    code: str
    cause: str
    remedy: str
    check: str | None = None

    @classmethod
    def of(cls, error: BaseException, *, check: str | None = None) -> Self:
        """Read it off an error."""
        code, cause, remedy = explain(error)
        return cls(code=code, cause=cause, remedy=remedy, check=check)

    @classmethod
    def of_check(cls, check: Check) -> Self:
        """Name it after a check that failed."""
        return cls.of(broken(check), check=check.name)


class Used(_Part):
    """An artefact that was restored, as its manifest has it, hash and header verified before a tool saw a byte."""

    key: str
    backup_id: str
    hash_sha3_256: str
    size_bytes: int
    k_backup_version: int
    exported_at: str


class LegReport(_Part):
    """What one leg did.

    Times are RFC 3339, UTC; a field is None where the leg did not come so far.

    :ivar artefacts: in the order in which they were restored.
    :ivar wal_files: how many files recovery read.
    :ivar reached_at: commit time of the last transaction that is there; of a dump its snapshot.
    :ivar reached_lsn: where the restored cluster's new timeline begins.
    :ivar rto_s: seconds from the first look into the bucket until the server answered queries.
    :ivar rpo_s: seconds from :attr:`reached_at` to the drill's moment: the target, or its start for `latest`.
    :ivar row_counts: rows of each table of the dumped database but the unlogged ones, by `schema.table`.
    """

    leg: Leg
    verdict: Verdict
    started_at: str
    finished_at: str
    artefacts: list[Used] = []
    wal_files: int | None = None
    system_identifier: str | None = None
    reached_at: str | None = None
    reached_lsn: str | None = None
    timeline: int | None = None
    rto_s: float | None = None
    rpo_s: float | None = None
    checks: list[Check] = []
    row_counts: dict[str, int] | None = None
    failure: Failure | None = None
    versions: dict[str, str] = {}


class Evidence(_Part):
    """One drill, whole.

    :ivar run_id: the run of Airflow, `dag_id/run_id`.
    :ivar target: `latest`, or the time that was asked for.
    :ivar legs: those that were asked for; a drill by hand may ask for one.
    :ivar checks: of the drill as a whole: the two legs against each other.
    :ivar failures: empty if it passed; the first one names the incident.
    """

    format_version: Literal[1] = FORMAT_VERSION
    drill_id: str
    run_id: str
    target: str
    bucket: str
    started_at: str
    finished_at: str
    verdict: Verdict
    rto_s: float | None = None
    rpo_s: float | None = None
    legs: list[LegReport]
    checks: list[Check] = []
    failures: list[Failure] = []
