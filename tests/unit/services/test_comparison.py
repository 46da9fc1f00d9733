"""What is compared with what, and what is said of it: differences are named, nothing uncompared passes in silence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pv_backup.services.evidence.document import Leg, LegReport, Result, Verdict
from pv_backup.services.manifest import Manifest
from pv_backup.services.restoration.comparison import compare_legs, compare_row_counts
from tests.unit.services.manifest_samples import FACTS

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-ERR-07")]

UNTIL = datetime(2026, 3, 29, 3, 30, tzinfo=UTC)


def manifest(**facts: Any) -> Manifest:
    """Of a dump whose tables were counted like that."""
    dump = {"key": "2026/03/backup_20260329.enc", "backup_type": "pg_dump"}
    return Manifest.model_validate(FACTS | dump | facts)


def report(leg: Leg, **facts: Any) -> LegReport:
    """Of a leg that ended well."""
    times = {"started_at": "2026-03-29T04:00:00Z", "finished_at": "2026-03-29T04:10:00Z"}
    return LegReport(leg=leg, verdict=Verdict.PASSED, **(times | {"system_identifier": "1"} | facts))


def rows_of(physical: dict[str, Any], *, until: datetime | None = UNTIL, **logical: Any) -> tuple[Result, str]:
    """What the comparison of rows says of a dump exported at 03:00 and a cluster."""
    dump = report(Leg.LOGICAL, **({"reached_at": "2026-03-29T03:00:00Z", "row_counts": {"a.t": 3}} | logical))
    _, check = compare_legs(dump, report(Leg.PHYSICAL, **physical), until=until)
    assert check.name == "legs/row_counts"
    return check.result, check.detail


def test_the_same_rows_pass_with_their_number():
    check = compare_row_counts({"a.t": 3, "b.u": 0}, manifest(row_counts={"a.t": 3, "b.u": 0}))

    assert (check.name, check.result, check.detail) == ("row_counts", Result.PASSED, "3 rows in 2 tables")
    assert compare_row_counts({}, manifest(row_counts={})).result is Result.PASSED


def test_missing_tables_further_tables_and_other_numbers_are_named():
    check = compare_row_counts({"a.t": 2, "new.n": 1}, manifest(row_counts={"a.t": 3, "gone.g": 5}))

    assert check.result is Result.FAILED
    assert check.detail.splitlines() == [
        "a.t: 2 rows restored, 3 rows dumped",
        "gone.g: no such table restored, 5 rows dumped",
        "new.n: 1 rows restored, no such table dumped",
    ]


def test_of_very_many_differences_the_first_are_told():
    check = compare_row_counts({}, manifest(row_counts={f"a.t{number:03}": 1 for number in range(200)}))

    assert len(check.detail.splitlines()) == 31
    assert check.detail.splitlines()[-1] == "and 170 more"


def test_a_table_without_a_count_is_named_with_the_reason_and_the_others_are_compared():
    absent = {"a.locked": "canceling statement due to lock timeout", "a.old": "dropped meanwhile: no such relation"}
    counted = manifest(row_counts={"a.t": 3}, row_counts_absent=absent)

    passed = compare_row_counts({"a.t": 3, "a.locked": 7}, counted)
    failed = compare_row_counts({"a.t": 1, "a.locked": 7}, counted)
    lost = compare_row_counts({"a.t": 3}, counted)

    reasons = [f"not compared: {name}: {reason}" for name, reason in absent.items()]
    assert (passed.result, passed.detail.splitlines()) == (Result.PASSED, ["3 rows in 1 tables", *reasons])
    assert (failed.result, failed.detail.splitlines()[0]) == (Result.FAILED, "a.t: 1 rows restored, 3 rows dumped")
    assert (lost.result, lost.detail.splitlines()[0]) == (
        Result.FAILED,
        "a.locked: not restored; at dump time it had no count: canceling statement due to lock timeout",
    )


def test_where_counting_stopped_half_way_the_rest_is_not_judged():
    stopped = manifest(row_counts={"a.t": 3}, row_counts_absent={"*": "counting stopped: server closed"})

    check = compare_row_counts({"a.t": 3, "b.u": 9}, stopped)

    assert check.result is Result.PASSED
    assert check.detail.splitlines()[1] == "not compared: more tables: counting stopped: server closed"
    assert compare_row_counts({"b.u": 9}, stopped).result is Result.FAILED


def test_nothing_counted_is_skipped_with_its_reason_and_failed_without_one():
    told = compare_row_counts({"a.t": 3}, manifest(row_counts={}, row_counts_absent={"*": "counting stopped: why"}))
    silent = compare_row_counts({"a.t": 3}, manifest())

    assert (told.result, told.detail) == (Result.SKIPPED, "not compared: more tables: counting stopped: why")
    assert silent.result is Result.FAILED
    assert "no row counts, and no reason" in silent.detail


@pytest.mark.parametrize(
    ("dump", "base", "result"), [("1", "1", Result.PASSED), ("1", "2", Result.FAILED), ("1", None, Result.SKIPPED)]
)
def test_dump_and_base_backup_must_come_from_one_cluster(dump: str, base: str | None, result: Result):
    check, _ = compare_legs(
        report(Leg.LOGICAL, system_identifier=dump), report(Leg.PHYSICAL, system_identifier=base), until=UNTIL
    )

    assert (check.name, check.result) == ("legs/system_identifier", result)
    assert check.detail == f"dump of 1, base backup of {base or 'an unknown cluster'}"


@pytest.mark.parametrize("reached", ["2026-03-29T02:59:00Z", None])
def test_without_a_commit_between_them_both_legs_must_have_the_same_rows(reached: str | None):
    same = rows_of({"reached_at": reached, "row_counts": {"a.t": 3}})
    other = rows_of({"reached_at": reached, "row_counts": {"a.t": 2}})

    assert same == (Result.PASSED, "3 rows in 1 tables")
    assert other == (Result.FAILED, "a.t: 2 rows recovered, 3 rows of the dump")


def test_with_a_commit_between_them_they_are_not_compared():
    result, detail = rows_of({"reached_at": "2026-03-29T03:00:01Z", "row_counts": {"a.t": 3}})

    assert result is Result.SKIPPED
    assert "was made at 2026-03-29T03:00:01Z, after the dump's snapshot at 2026-03-29T03:00:00Z" in detail


@pytest.mark.parametrize(
    ("reached", "until"),
    [
        # The shipped WAL may end before the dump's snapshot.
        ("2026-03-29T02:00:00Z", None),
        ("2026-03-29T02:00:00Z", datetime(2026, 3, 29, 2, 30, tzinfo=UTC)),
        # A commit has its time a moment before a snapshot sees it.
        ("2026-03-29T02:59:59Z", UNTIL),
    ],
)
def test_a_difference_that_has_another_explanation_is_told_and_not_judged(reached: str, until: datetime | None):
    result, detail = rows_of({"reached_at": reached, "row_counts": {"a.t": 2}}, until=until)

    assert result is Result.SKIPPED
    assert detail.splitlines()[1] == "a.t: 2 rows recovered, 3 rows of the dump"
    assert rows_of({"reached_at": reached, "row_counts": {"a.t": 3}}, until=until)[0] is Result.PASSED


def test_a_leg_that_counted_nothing_is_told():
    assert rows_of({"reached_at": None})[0] is Result.SKIPPED
    assert rows_of({"row_counts": {}}, row_counts=None)[0] is Result.SKIPPED
