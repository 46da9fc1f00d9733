"""What a long stream says of itself, and the ticker that says it whether or not the stream moves."""

from __future__ import annotations

import logging
import threading

import pytest

from pv_backup.services.progress import REPORT_EVERY_S, Progress, Ticker, human_bytes, human_duration

pytestmark = pytest.mark.case("TC-NOM-01")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 * 1024**2, "10.0 MiB"),
        (1024**3, "1.0 GiB"),
        (5000 * 1024**3, "4.9 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_bytes_are_written_as_operators_read_them(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.9, "0:00:59"), (3661, "1:01:01"), (90000, "25:00:00")]
)
def test_durations_are_hours_minutes_seconds(seconds, text):
    assert human_duration(seconds) == text


def test_a_report_tells_bytes_part_rate_and_elapsed_time(caplog):
    progress = Progress(label="2026/11/backup_20261122.enc")
    progress.read_bytes, progress.stored_bytes, progress.part_number = 3 << 20, 2 << 20, 7
    with caplog.at_level(logging.INFO):
        progress.report()
    (told,) = caplog.messages
    assert told.startswith("2026/11/backup_20261122.enc: 3.0 MiB read, 2.0 MiB stored, part 7, ")
    assert told.endswith("/s, 0:00:00 elapsed")


def test_the_rate_is_that_since_the_last_report(caplog):
    progress = Progress(label="dump")
    progress.read_bytes = 1 << 30
    with caplog.at_level(logging.INFO):
        progress.report()
        progress.report()
    assert ", 0 B/s, " in caplog.messages[1]


def test_a_long_stream_reports_at_least_every_ten_seconds():
    assert REPORT_EVERY_S <= 10


def test_a_ticker_ticks_until_it_is_closed():
    ticks = threading.Semaphore(0)
    with Ticker(every_s=0.01, action=ticks.release, name="test"):
        for _ in range(3):
            assert ticks.acquire(timeout=60)
    while ticks.acquire(blocking=False):
        pass
    assert not ticks.acquire(timeout=0.05)


def test_an_action_that_raises_ends_the_ticker_aloud_and_not_the_work(caplog):
    called = threading.Event()

    def fail():
        called.set()
        raise ValueError("no more")

    with Ticker(every_s=0.01, action=fail, name="doomed"):
        assert called.wait(60)
    assert "doomed stopped ticking" in caplog.text
    assert "no more" in caplog.text


def test_a_download_does_not_speak_of_parts(caplog):
    caplog.set_level("INFO")
    progress = Progress(label="reading back 2026/11/backup_20261122.enc", downloads=True)
    progress.read_bytes = 3 * 1024 * 1024
    progress.report()
    assert "3.0 MiB read, " in caplog.text
    assert "stored" not in caplog.text
