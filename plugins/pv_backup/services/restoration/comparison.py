"""Hold what was restored against what was backed up, and one leg of a drill against the other (SPEC F4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from pv_backup.services.evidence.document import Check, LegReport, Result
from pv_backup.services.manifest import Manifest
from pv_backup.services.row_counts import DROPPED

_SHOWN_TABLES: Final = 30
_ALL: Final = "*"
# A commit has its time shortly before others can see it: until its WAL is on the disk, and on a synchronous standby.
_UNSEEN_FOR: Final = timedelta(seconds=10)
_COMMITS_BETWEEN: Final = (
    "not compared: the last commit in the recovered cluster was made at {reached}, "
    "after the dump's snapshot at {dumped}"
)
_MAYBE_BETWEEN: Final = (
    "not judged: they differ, and between the last commit in the recovered cluster, at {reached}, and the dump's "
    "snapshot at {dumped} there may be commits that one of the two can't have"
)


def compare_row_counts(counts: Mapping[str, int], manifest: Manifest) -> Check:
    """Whether a restored dump has the rows that were counted in its own snapshot, table by table.

    A table that could not be counted at dump time is named with the reason. If none was counted there is nothing to
    compare, and the check is skipped; without a reason for that it has failed.

    :param counts: of the restored database, by `schema.table`.
    """
    absent = manifest.row_counts_absent or {}
    recorded = manifest.row_counts
    if recorded is None and not absent:
        result, lines = Result.FAILED, [f"the manifest of {manifest.key} has no row counts, and no reason for it"]
    else:
        result, lines = _judged(counts, recorded or {}, absent)
    return _check("row_counts", result, lines)


def compare_legs(logical: LegReport, physical: LegReport, *, until: datetime | None = None) -> list[Check]:
    """Whether both legs of a drill brought back the same cluster, and the same rows where they must.

    They must where no commit lies between the dump's snapshot and the second that recovery reached. Tables that are
    unlogged must be in neither report (:class:`~pv_backup.services.row_counts.Counted`): recovery empties them.

    :param until: the target, up to which the shipped WAL has every commit; None, for `latest`: it may end before the
        dump's snapshot, so that a difference proves nothing.
    """
    return [_same_system(logical, physical), _same_rows(logical, physical, until)]


def _same_system(logical: LegReport, physical: LegReport) -> Check:
    theirs = (logical.system_identifier, physical.system_identifier)
    said = f"dump of {theirs[0] or 'an unknown cluster'}, base backup of {theirs[1] or 'an unknown cluster'}"
    if None in theirs:
        return _check("legs/system_identifier", Result.SKIPPED, [said])
    return _check("legs/system_identifier", Result.PASSED if theirs[0] == theirs[1] else Result.FAILED, [said])


def _same_rows(logical: LegReport, physical: LegReport, until: datetime | None) -> Check:
    name = "legs/row_counts"
    if logical.row_counts is None or physical.row_counts is None or logical.reached_at is None:
        return _check(name, Result.SKIPPED, ["not compared: not both legs counted their rows"])
    dumped = datetime.fromisoformat(logical.reached_at)
    reached = datetime.fromisoformat(physical.reached_at) if physical.reached_at else None
    times = {"dumped": logical.reached_at, "reached": physical.reached_at or "an unknown time"}
    if reached is not None and reached > dumped:
        return _check(name, Result.SKIPPED, [_COMMITS_BETWEEN.format(**times)])
    differing = _differences(physical.row_counts, logical.row_counts, "recovered", "of the dump")
    if not differing:
        return _check(name, Result.PASSED, [_summary(logical.row_counts)])
    provable = until is not None and dumped <= until and (reached is None or reached <= dumped - _UNSEEN_FOR)
    if not provable:
        return _check(name, Result.SKIPPED, [_MAYBE_BETWEEN.format(**times), *_bounded(differing)])
    return _check(name, Result.FAILED, _bounded(differing))


def _judged(
    counts: Mapping[str, int], recorded: Mapping[str, int], absent: Mapping[str, str]
) -> tuple[Result, list[str]]:
    # Where counting stopped half-way, what follows has no count.
    comparable = {name: n for name, n in counts.items() if name in recorded or not {name, _ALL} & absent.keys()}
    differing = _differences(comparable, recorded, "restored", "dumped")
    differing += [
        f"{name}: not restored; at dump time it had no count: {reason}"
        for name, reason in sorted(absent.items())
        if name != _ALL and name not in counts and not reason.startswith(DROPPED)
    ]
    reasons = [f"not compared: {'more tables' if name == _ALL else name}: {absent[name]}" for name in sorted(absent)]
    if differing:
        return Result.FAILED, _bounded(differing) + _bounded(reasons)
    if absent and not recorded:
        return Result.SKIPPED, _bounded(reasons)
    return Result.PASSED, [_summary(recorded), *_bounded(reasons)]


def _differences(counts: Mapping[str, int], expected: Mapping[str, int], here: str, there: str) -> list[str]:
    """A line for each table that has not the rows that it should have."""
    return [
        f"{name}: {_rows(counts.get(name))} {here}, {_rows(expected.get(name))} {there}"
        for name in sorted(counts.keys() | expected.keys())
        if counts.get(name) != expected.get(name)
    ]


def _rows(count: int | None) -> str:
    return "no such table" if count is None else f"{count} rows"


def _summary(counts: Mapping[str, int]) -> str:
    return f"{sum(counts.values())} rows in {len(counts)} tables"


def _bounded(lines: list[str]) -> list[str]:
    more = len(lines) - _SHOWN_TABLES
    return lines[:_SHOWN_TABLES] + ([f"and {more} more"] if more > 0 else [])


def _check(name: str, result: Result, lines: list[str]) -> Check:
    # Numbers that are there already take no time to compare.
    return Check(name=name, result=result, seconds=0.0, detail="\n".join(lines))
