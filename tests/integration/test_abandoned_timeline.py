"""A base backup on a timeline that was abandoned is passed over, and its history never restored without being asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from pv_backup.services.artefacts import manifest_key, wal_object_key
from pv_backup.services.drill import LATEST, DrillOrder
from pv_backup.services.errors import TargetAhead, TargetRefused
from pv_backup.services.evidence.document import Leg
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.cluster import ClusterRestore
from pv_backup.services.restoration.legs import LegTools, PhysicalLeg
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.timestamps import rfc3339
from pv_backup.services.wal_objects import SYSTEM_IDENTIFIER
from tests.integration.abandoned_world import (
    DEAD_BASE,
    OLD_BASE,
    Abandoned,
    abandoned_base,
    entries,
    promoted_at_the_base_backups_end,
    promoted_by_mistake,
)
from tests.integration.command_line import CommandLine
from tests.support.clusters import ClusterTemplate
from tests.support.servers import TestStack

pytestmark = [pytest.mark.case("TC-NOM-03"), pytest.mark.case("TC-NOM-04")]

OK, FAILED, DAMAGED = 0, 1, 2


@pytest.fixture(scope="module")
def abandoned(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Abandoned]:
    with abandoned_base(stack, cluster_template) as abandoned:
        yield abandoned


def test_the_latest_is_the_end_of_the_living_timeline(abandoned: Abandoned, open_path: Path):
    found, restored = abandoned.entries_at(RecoveryTarget(), open_path)

    assert found == Abandoned.LIVE
    assert restored.base.manifest.key == OLD_BASE
    assert restored.timeline == 3


def test_a_time_on_the_living_timeline_is_reached(abandoned: Abandoned, open_path: Path):
    found, _ = abandoned.entries_at(RecoveryTarget(time=abandoned.live[1].at), open_path)

    assert found == Abandoned.LIVE[:-2]


def test_a_time_before_the_branch_is_reached(abandoned: Abandoned, open_path: Path):
    found, _ = abandoned.entries_at(RecoveryTarget(time=abandoned.common[1].at), open_path)

    assert found == Abandoned.COMMON[:2]


def test_a_time_at_which_only_the_abandoned_timeline_was_written_is_reached_on_it(
    abandoned: Abandoned, open_path: Path
):
    found, restored = abandoned.entries_at(RecoveryTarget(time=abandoned.dead[5].at), open_path)

    assert found == Abandoned.DEAD[:-2]
    assert restored.base.manifest.key == DEAD_BASE


def test_a_time_at_which_nobody_wrote_is_refused_with_both_ways_out(abandoned: Abandoned, open_path: Path):
    with pytest.raises(TargetRefused, match="nobody wrote at") as refused:
        abandoned.restore(open_path / "data").plan(RecoveryTarget(time=abandoned.unwritten_at))

    assert "timeline 1 was written to until" in refused.value.what
    assert f"--latest --base {DEAD_BASE}" in refused.value.remedy


def test_a_timeline_that_was_given_up_soon_takes_no_base_backup_from_the_living_one(
    stack: TestStack, cluster_template: ClusterTemplate, open_path: Path
):
    with promoted_by_mistake(stack, cluster_template) as world:
        command = CommandLine(world.backup)
        listed = command("list").stdout.decode()
        restored = command("restore", open_path / "data", "--latest")
        world.bucket.delete(manifest_key(OLD_BASE))
        route = ClusterRestore(
            store=world.bench.store, keys=world.bench.keys, tools=Server({}), directory=open_path / "alone"
        ).plan(RecoveryTarget())

    assert restored.returncode == OK, restored.stderr.decode()
    assert entries(open_path / "data") == ("common 0", "kept 0", "kept 1")
    assert f"`restore --base {OLD_BASE}` takes the latter" in " ".join(restored.stderr.decode().split())
    assert (route.base.manifest.key, route.timeline) == (DEAD_BASE, 1)
    assert "ABANDONED" not in listed
    assert "timeline 2 does not lead on from it, but ended before" in listed


def test_a_byte_of_the_living_timeline_is_reached(abandoned: Abandoned, open_path: Path):
    found, _ = abandoned.entries_at(RecoveryTarget(lsn=abandoned.live[1].lsn), open_path)

    assert found == Abandoned.LIVE[:-2]


def test_the_drill_takes_the_same_base_backup_and_the_list_says_why(abandoned: Abandoned, open_path: Path):
    bench, command = abandoned.world.bench, CommandLine(abandoned.world.backup)
    leg = PhysicalLeg(LegTools(bench.store, bench.keys, Server({}), open_path, open_path))
    now = abandoned.live[-1].at
    for target in (LATEST, rfc3339(abandoned.live[1].at)):
        order = DrillOrder.at(target, drill_id="1", run_id="1", legs=[Leg.PHYSICAL], now=now)
        route = leg.plan(order)
        assert (route.base.manifest.key, route.timeline) == (OLD_BASE, 2)

    text = command("list").stdout.decode()
    covered = {found["base"]: found for found in json.loads(command("list", "--json").stdout)["wal"]["coverage"]}

    assert {key: (found["timeline"], found["newest_timeline"]) for key, found in covered.items()} == {
        OLD_BASE: (2, 2),
        DEAD_BASE: (1, 2),
    }
    assert text.count("ABANDONED: timeline 2 does not lead on from it") == 1
    assert text.index(f"from {DEAD_BASE}") < text.index("ABANDONED")


def test_the_command_says_what_it_passes_over(abandoned: Abandoned, open_path: Path):
    restored = CommandLine(abandoned.world.backup)("restore", open_path / "data", "--latest")

    assert restored.returncode == OK, restored.stderr.decode()
    told = " ".join(restored.stderr.decode().split())
    assert f"{DEAD_BASE} (stopped at" in told
    assert f"is passed over: timeline 2 does not lead on from it; `restore --base {DEAD_BASE}` would take it" in told
    assert entries(open_path / "data") == Abandoned.LIVE


def test_the_abandoned_history_is_restored_to_who_asks_for_it(abandoned: Abandoned, open_path: Path):
    command = CommandLine(abandoned.world.backup)

    restored = command("restore", open_path / "data", "--latest", "--base", DEAD_BASE)

    assert restored.returncode == OK, restored.stderr.decode()
    assert f"from {DEAD_BASE}" in restored.stdout.decode()
    assert "timeline     3, from" in restored.stdout.decode(), "2 is the living one's"
    assert entries(open_path / "data") == Abandoned.DEAD


def test_a_base_backup_that_cannot_be_taken_is_refused(abandoned: Abandoned, open_path: Path):
    command = CommandLine(abandoned.world.backup)
    early = abandoned.dead_base_at.at - timedelta(days=1)

    unknown = command("restore", open_path / "data", "--latest", "--base", "2026/03/backup_20260329.enc")
    blank = command("restore", open_path / "data", "--latest", "--base", "")
    late = command("restore", open_path / "data", "--target-time", early.isoformat(), "--base", DEAD_BASE)

    assert [call.returncode for call in (unknown, blank, late)] == [FAILED] * 3
    assert b"'2026/03/backup_20260329.enc' is not the key of a published base backup; the newest is" in unknown.stderr
    assert b"'' is not the key of a published base backup" in blank.stderr
    assert f"is before the end of the base backup {DEAD_BASE}" in late.stderr.decode()
    assert not (open_path / "data").exists()


@pytest.mark.case("TC-NEG-01")
def test_a_damaged_base_backup_is_told_with_the_one_to_take_instead(abandoned: Abandoned, open_path: Path):
    command, bucket = CommandLine(abandoned.world.backup), abandoned.world.bucket
    bodies = {key: bucket.body(key) for key in (OLD_BASE, DEAD_BASE)}
    for key, body in bodies.items():
        bucket.overwrite(key, body[:-1] + bytes([body[-1] ^ 1]))
    try:
        newer = command("restore", open_path / "newer", "--latest", "--base", DEAD_BASE)
        oldest = command("restore", open_path / "oldest", "--latest")
    finally:
        for key, body in bodies.items():
            bucket.overwrite(key, body)

    assert (newer.returncode, oldest.returncode) == (DAMAGED, DAMAGED)
    assert f"`restore … --base {OLD_BASE}`" in newer.stderr.decode()
    assert "there is no base backup before it that --base could name" in oldest.stderr.decode()
    assert list((open_path / "newer").iterdir()) == []


def test_where_no_base_backup_leads_to_the_living_timeline_its_end_is_refused(abandoned: Abandoned, open_path: Path):
    with abandoned.without_manifest(OLD_BASE):
        with pytest.raises(TargetRefused) as refused:
            abandoned.restore(open_path / "data").plan(RecoveryTarget())
        with pytest.raises(TargetRefused) as late:
            abandoned.restore(open_path / "data").plan(RecoveryTarget(time=abandoned.live[-1].at))
        old = abandoned.restore(open_path / "data").plan(RecoveryTarget(time=abandoned.dead_base_at.at))

    assert "leads to timeline 2, the newest in the bucket" in refused.value.what
    assert f"--base {DEAD_BASE}" in refused.value.remedy
    assert not isinstance(late.value, TargetAhead)
    assert "on timeline 1" in late.value.what
    assert "timeline 2 goes on" in late.value.what
    assert (old.base.manifest.key, old.timeline) == (DEAD_BASE, 1)


@contextmanager
def history(abandoned: Abandoned, owner: str | None) -> Iterator[None]:
    """The bucket with the history of the living timeline gone, or called another cluster's."""
    bucket, key = abandoned.world.bucket, wal_object_key("00000002.history")
    body, metadata = bucket.body(key), bucket.head(key)["Metadata"]
    if owner is None:
        bucket.delete(key)
    else:
        bucket.put(key, body, metadata | {SYSTEM_IDENTIFIER: owner})
    try:
        yield
    finally:
        bucket.put(key, body, metadata)


@pytest.mark.case("TC-NEG-04")
@pytest.mark.parametrize("owner", [None, "1"], ids=["gone", "forged"])
def test_a_living_timeline_without_its_history_is_not_forgotten(
    abandoned: Abandoned, open_path: Path, owner: str | None
):
    with history(abandoned, owner), pytest.raises(TargetRefused, match="leads to timeline 2, the newest in the bucket"):
        abandoned.restore(open_path / "data").plan(RecoveryTarget())


def test_a_timeline_that_another_cluster_left_in_the_bucket_is_none_of_ours(abandoned: Abandoned, open_path: Path):
    bucket = abandoned.world.bucket
    stale = [wal_object_key(name) for name in ("00000007.history", "000000070000000000000001")]
    for key, name in zip(stale, ("00000002.history", abandoned.world.shipped()[-1]), strict=True):
        source = wal_object_key(name)
        bucket.put(key, bucket.body(source), bucket.head(source)["Metadata"] | {SYSTEM_IDENTIFIER: "1"})
    try:
        route = abandoned.restore(open_path / "data").plan(RecoveryTarget())
    finally:
        for key in stale:
            bucket.delete(key)

    assert (route.base.manifest.key, route.timeline) == (OLD_BASE, 2)


def test_a_timeline_that_branched_off_in_the_last_segment_of_the_base_backup_is_reached(
    stack: TestStack, cluster_template: ClusterTemplate, open_path: Path
):
    with promoted_at_the_base_backups_end(stack, cluster_template, open_path) as world:
        command = CommandLine(world.backup)
        listed = json.loads(command("list", "--json").stdout)["wal"]["coverage"]
        restored = command("restore", open_path / "data", "--latest")

    assert restored.returncode == OK, restored.stderr.decode()
    assert entries(open_path / "data") == ("live",)
    (coverage,) = listed
    assert (coverage["timeline"], coverage["newest_timeline"], coverage["holes"]) == (2, 2, [])
    assert coverage["to_time"] is not None
