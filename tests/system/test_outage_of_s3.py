"""S3 is killed in mid-upload and comes back 20 s later; meanwhile somebody starts the DAG once more."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from tests.support.servers import TestStack
from tests.system.airflow_world import AirflowWorld, Ended, manifest_key, opened, wait_for
from tests.system.dump_gate import DumpGate

OUTAGE_S = 20
# "At least every 10 seconds", and the log line itself takes its time on a busy machine.
LONGEST_SILENCE_S = 10.9


@dataclass(frozen=True)
class Outage:
    """What the scenario left; `row_meanwhile` is the first run's row after the second run was refused."""

    world: AirflowWorld
    first: Ended
    second: Ended
    alerts_meanwhile: list[dict[str, Any]]
    row_meanwhile: dict[str, Any]


@pytest.fixture(scope="module")
def outage(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    with opened(stack, tmp_path_factory.mktemp("outage")) as world:
        world.fill_source(megabytes=32)
        run = world.start(part_size_mb=5)
        gate = DumpGate(world, run)
        dump = gate.dump_that_has_written(24)
        wait_for(world.open_uploads, run=run, meaning="a part was uploaded")
        stack.s3.kill()
        dump.resume()
        down_since = time.monotonic()
        second = world.run()
        alerts_meanwhile, row_meanwhile = world.alerts(), world.row()
        time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - down_since)))
        stack.s3.start()
        yield Outage(world, run.wait(), second, alerts_meanwhile, row_meanwhile)


@pytest.mark.case("TC-ERR-03")
def test_the_upload_goes_on_when_s3_is_back(outage: Outage):
    world = outage.world

    assert outage.first.exit_code == 0, outage.first.log
    row = world.row()
    assert row["status"] == "SUCCESS"
    assert world.outcomes() == [(str(row["backup_id"]), "SUCCESS")]
    assert manifest_key(row["day"]) in world.versions()
    assert world.open_uploads() == []


@pytest.mark.case("TC-ERR-03")
def test_the_log_says_that_s3_is_tried_again_within_the_attempt(outage: Outage):
    assert outage.first.lines_with("S3 upload_part of", "failed, try")
    assert not outage.first.lines_with("Retry policy decision")


@pytest.mark.case("TC-NOM-01")
def test_a_long_stream_reports_its_progress_at_least_every_ten_seconds(outage: Outage):
    report = re.compile(
        r"(\S+Z) .*\.enc: [\d.]+ \w+ read, [\d.]+ \w+ stored, part \d+, [\d.]+ \w+/s, \d+:\d\d:\d\d elapsed"
    )
    (began,) = outage.first.lines_with("starting", "task_id=stream_dump")
    (ended,) = outage.first.lines_with(".enc uploaded:", "backup_")

    reports = [found.group(1) for line in outage.first.log.splitlines() if (found := report.match(line))]

    assert len(reports) >= OUTAGE_S // 10
    times = [datetime.fromisoformat(text) for text in [*reports, ended.split()[0]]]
    assert (times[0] - datetime.fromisoformat(began.split()[0])).total_seconds() < 2 * LONGEST_SILENCE_S
    assert [gap for a, b in itertools.pairwise(times) if (gap := (b - a).total_seconds()) > LONGEST_SILENCE_S] == []


@pytest.mark.case("TC-NEG-06")
def test_a_second_run_is_refused_while_the_first_is_alive(outage: Outage):
    assert outage.second.exit_code == 1
    (alert,) = outage.alerts_meanwhile
    assert alert["code"] == "REFUSED"
    assert "lease" in alert["cause"] or "alive" in alert["cause"], alert
    assert outage.second.lines_with("RunAlive")


@pytest.mark.case("TC-NEG-06")
def test_the_first_run_is_not_harmed_by_the_second(outage: Outage):
    before, after = outage.row_meanwhile, outage.world.row()

    assert before["status"] == "RUNNING"
    assert (before["backup_id"], before["run_id"]) == (after["backup_id"], after["run_id"])
    assert after["replanification_count"] == 0
