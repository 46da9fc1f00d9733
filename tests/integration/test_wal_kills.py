"""A worker that is killed, at each of its steps and at any moment: the next run finishes the job (TC-ERR-08)."""

from __future__ import annotations

import os
import random  # noqa: TID251 - to choose moments, reproducibly; no identifier comes from it
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from pv_backup.services.artefacts import wal_object_key
from tests.integration.killing import Worker, steps_of, wal_worker
from tests.integration.wal_worker import Order
from tests.integration.wal_world import RecordedWal, ShippingWorld, numbered, shipping_world, wait_until

pytestmark = pytest.mark.case("TC-ERR-08", "TC-NOM-02")

SEED = 47


@pytest.fixture
def world(stack, source_db, journal_db, bucket, tmp_path) -> Iterator[ShippingWorld]:
    directory = tmp_path / "wal"
    directory.mkdir(mode=0o700)
    with shipping_world(stack, source_db, journal_db, bucket, directory) as world:
        yield world


@pytest.fixture
def worker(world: ShippingWorld, journal_db) -> Iterator[Worker]:
    with wal_worker(world, journal_db) as worker:
        yield worker


def assert_nothing_lost(world: ShippingWorld, contents: dict[str, bytes], where: str) -> None:
    """Each file is still in the directory, or its object is verified."""
    for name, content in contents.items():
        there = world.directory / name
        kept = there.read_bytes() if there.exists() else world.fetched(name)
        assert kept == content, f"{name}, {where}"


def assert_shipped_once(world: ShippingWorld, contents: dict[str, bytes], where: str) -> None:
    """Every file is in the bucket in one version, as it was, with one event, and gone from the directory."""
    assert world.waiting() == [], where
    events = {event["object_key"]: [] for event in world.events()}
    for event in world.events():
        events[event["object_key"]].append(str(event["backup_id"]))
    for name, content in contents.items():
        key = wal_object_key(name)
        assert world.bucket.versions(key) == [key], f"{name}, {where}"
        assert events[key] == [world.backup_id_of(name)], f"{name}, {where}"
        assert world.fetched(name) == content, f"{name}, {where}"


def finish(world: ShippingWorld, where: str) -> None:
    assert world.run().problems == [], where


def queued(world: ShippingWorld, recorded: RecordedWal, *, first: int, count: int) -> dict[str, bytes]:
    """Put files into the directory; their contents by name."""
    names = numbered(recorded, world.directory, first=first, count=count)
    return {name: (world.directory / name).read_bytes() for name in names}


def sweep(world: ShippingWorld, worker: Worker, recorded: RecordedWal, chosen: slice) -> None:
    """Kill a run of two files at each of the chosen steps, each time with two files that follow the last."""
    log = world.directory.with_name("steps")
    numbered(recorded, world.directory, first=0xFE, count=2)
    finish(world, "before the first kill")  # an archive's beginning has steps of its own
    contents = queued(world, recorded, first=0x100, count=2)
    worker.start(Order(directory=str(world.directory), steps=str(log)))
    assert worker.end().exit_code == 0
    assert_shipped_once(world, contents, "not killed")
    steps = steps_of(log)
    assert {"directory: listed", "journal: before COMMIT", "directory: after unlink"} <= set(steps)
    for number in range(1, len(steps) + 1)[chosen]:
        log.unlink()
        contents = queued(world, recorded, first=0x100 + 2 * number, count=2)
        worker.start(Order(directory=str(world.directory), steps=str(log), kill_at=number))
        assert worker.end().exit_code == -signal.SIGKILL
        where = f"killed at step {number} of {len(steps)}: {steps_of(log)[-1]}"
        assert_nothing_lost(world, contents, where)
        finish(world, where)
        assert_shipped_once(world, contents, where)


def test_a_run_killed_at_any_step_is_finished_by_the_next(world: ShippingWorld, worker: Worker, recorded: RecordedWal):
    sweep(world, worker, recorded, slice(None))


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_runs_killed_at_random_moments_lose_and_repeat_nothing(
    world: ShippingWorld, worker: Worker, recorded: RecordedWal, kills: int
):
    moments = random.Random(SEED)
    log = world.directory.with_name("steps")
    waiting: list[int] = []
    for kill in range(kills):
        contents = queued(world, recorded, first=0x100 + 30 * kill, count=30)
        pid = worker.start(Order(directory=str(world.directory), steps=str(log), parallelism=4))
        # By files and not by the clock alone: on a busy machine every moment would be before the first one.
        left, moment = moments.randrange(6, 31), moments.uniform(0, 0.1)
        wait_until(lambda left=left: len(world.waiting()) <= left, meaning=f"down to {left} files")
        time.sleep(moment)
        with suppress(ProcessLookupError):  # a fast machine may have done the rest meanwhile
            os.kill(pid, signal.SIGKILL)
        worker.end()
        waiting.append(len(world.waiting()))
        where = f"kill {kill} of seed {SEED}, {moment:.3f} s after {left} were left, {waiting[-1]} of 30 waiting"
        assert_nothing_lost(world, contents, where)
        finish(world, where)
        assert_shipped_once(world, contents, where)
    assert any(0 < left < 30 for left in waiting), f"no kill of seed {SEED} hit a run at work: {waiting}"
