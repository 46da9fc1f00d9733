"""What an alert says, and how it reads in a log, a mail and a chat."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from pv_backup.services.alert_texts import mail_html, mail_subject, webhook_json
from pv_backup.services.alerts import Alert, Level, LogChannel
from pv_backup.services.errors import (
    BackupAbsent,
    CircuitBreakerOpen,
    DayClosed,
    ExportFailed,
    FailClosedError,
    LeaseLost,
    ReadBackMismatch,
    RunAlive,
    RunLate,
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
        (DayClosed("it is published"), Level.WARNING, "REFUSED"),
        (BackupAbsent("nothing is there"), Level.WARNING, "WATCHDOG-ABSENT"),
        (LeaseLost("taken"), Level.CRITICAL, "REFUSED"),
        (RunLate("it is running still"), Level.CRITICAL, "LATE"),
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


@pytest.mark.parametrize(
    ("day", "incident"),
    [("2026-11-22", "pv_backup_daily_dump/2026-11-22/ERR-47-01"), ("", "pv_backup_daily_dump/ERR-47-01")],
)
def test_an_incident_is_named_after_dag_day_and_code(day: str, incident: str):
    error = ExportFailed("it ended")

    assert Alert.from_error(error, dag_id="pv_backup_daily_dump", day=day).incident == incident
    assert Alert.from_error(error, dag_id="pv_backup_daily_dump", day=day, incident="another").incident == "another"


def test_the_subject_of_a_mail_says_how_urgent_and_what_and_fits_one_line():
    alert = alert_of(FailClosedError("Vault is sealed"))

    assert mail_subject(alert) == "[pv-backup] CRITICAL ERR-47-02 pv_backup_daily_dump 2026-11-22"
    assert "\n" not in mail_subject(replace(alert, day="2026-11-22\r\nBcc: someone@example.com"))


def test_a_mail_escapes_what_an_error_quotes():
    alert = replace(
        alert_of(ExportFailed('relation "<script>alert(1)</script>" & more', remedy="drop <b>it</b>")),
        run_url='http://af/"onclick="x',
    )

    html = mail_html(alert)

    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "drop &lt;b&gt;it&lt;/b&gt;" in html
    assert '"onclick' not in html


def test_the_webhooks_text_is_readable_alone_and_is_no_markup():
    content = webhook_json(alert_of(ExportFailed("relation <orders> & more", remedy="look at the log")))

    assert content["text"].splitlines() == [
        "CRITICAL ERR-47-01 pv_backup_daily_dump 2026-11-22",
        "relation &lt;orders&gt; &amp; more",
        "Next: look at the log",
        "http://af",
    ]
    assert content["cause"] == "relation <orders> & more"
