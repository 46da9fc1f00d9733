"""What an alert says, and that a channel that is down hides neither the error nor the other channels."""

from __future__ import annotations

import logging

import pytest

from pv_backup.services.alerts import Alert, Level, LogChannel, raise_alert
from pv_backup.services.errors import (
    CircuitBreakerOpen,
    ExportFailed,
    FailClosedError,
    LeaseLost,
    ReadBackMismatch,
    RunAlive,
)

pytestmark = pytest.mark.case("TC-ERR-01", "TC-ERR-02", "TC-ERR-04")


def alert_of(error):
    return Alert.from_error(
        error, dag_id="pv_backup_daily_dump", day="2026-11-22", backup_id="an id", run_url="http://af"
    )


@pytest.mark.parametrize(
    ("error", "level", "code"),
    [
        (ExportFailed("pg_dump was ended by signal 9"), Level.CRITICAL, "ERR-47-01"),
        (FailClosedError("Vault is sealed"), Level.CRITICAL, "ERR-47-02"),
        (ReadBackMismatch("the hash differs"), Level.CRITICAL, "ERR-47-04"),
        (CircuitBreakerOpen("failed too often"), Level.CRITICAL, "CIRCUIT-BREAKER"),
        (RunAlive("another run is at work"), Level.WARNING, "REFUSED"),
        (LeaseLost("taken"), Level.CRITICAL, "REFUSED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_of_ours_gives_its_code_and_how_urgent_it_is(error, level, code):
    alert = alert_of(error)
    assert (alert.level, alert.code, alert.cause) == (level, code, error.what)


def test_the_remedy_is_the_next_step():
    assert alert_of(ExportFailed("it ended", remedy="look at the log")).next_step == "look at the log"


def test_an_error_that_nobody_foresaw_says_so():
    alert = alert_of(KeyError("rows"))
    assert (alert.level, alert.code, alert.cause) == (Level.CRITICAL, "UNEXPECTED", "KeyError: 'rows'")
    assert "not foreseen" in alert.next_step


def test_the_log_line_tells_all_that_a_reader_needs(caplog):
    LogChannel().send(alert_of(ExportFailed("it ended", remedy="look at the log")))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "ALERT critical ERR-47-01, pv_backup_daily_dump 2026-11-22: it ended. Next: look at the log"
    )


def test_a_channel_that_is_down_is_logged_and_the_others_still_get_it(caplog):
    class Down:
        def send(self, alert):
            raise ConnectionError("no mail server")

    raise_alert(alert_of(ExportFailed("it ended")), [Down(), LogChannel()])
    assert "alert channel Down failed" in caplog.text
    assert "no mail server" in caplog.text
    assert "ALERT critical ERR-47-01" in caplog.text
