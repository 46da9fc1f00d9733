"""No secret gets into an alert, a log or a record of one, also when a channel refuses or an error quotes it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from pv_backup.notifiers.incident import IncidentNotifier
from pv_backup.operators.alerting import alarm
from pv_backup.operators.workbench import journal_hook
from tests.integration.alarm_world import ALERT, ERROR, IDS, connected_journal, context_of, notify_all
from tests.integration.journal_world import JournalWorld
from tests.support.people import People
from tests.support.webhook import SECRET_PATH

pytestmark = pytest.mark.case("TC-ERR-02", "TC-ERR-03")

MAIL_PASSWORD = "aPasswordOfTheMailServer"


@pytest.fixture
def world(journal_db, monkeypatch) -> Iterator[JournalWorld]:
    with connected_journal(journal_db, monkeypatch) as world:
        yield world


def refusing(people: People) -> None:
    people.mail.refusing, people.webhook.status = "451 come back later", 500


Break = Callable[[People], None]


@pytest.mark.case("TC-INV-02")
@pytest.mark.parametrize("trouble", [pytest.param(refusing, id="refusing"), pytest.param(None, id="well")])
def test_no_secret_is_in_alert_log_or_record(
    people: People, world: JournalWorld, journal_db, trouble: Break | None, monkeypatch, caplog, capsys
):
    caplog.set_level(logging.INFO)
    if trouble:
        trouble(people)
    smtp = json.loads(people.mail.connection) | {"login": "", "password": MAIL_PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SMTP", json.dumps(smtp))

    alarm(IDS).tell(ALERT)
    notify_all(context_of(ERROR))

    said = "".join(capsys.readouterr())
    assert "notif" in said if trouble else "ALERT" in caplog.text
    shown = caplog.text + said + str(world.sql("SELECT * FROM pv_backup.backup_audit_events"))
    shown += str([message.as_string() for message in people.mail.messages]) + str(people.webhook.received)
    for secret in (
        SECRET_PATH,
        SECRET_PATH.rpartition("/")[2],
        MAIL_PASSWORD,
        urlsplit(journal_db.service_dsn).password or "",
    ):
        assert secret
        assert secret not in shown


@pytest.mark.case("TC-INV-02")
def test_a_secret_that_an_unforeseen_error_quotes_is_masked(people: People, world: JournalWorld, journal_db):
    password = urlsplit(journal_db.service_dsn).password or ""
    journal_hook(IDS).sessions()  # the task has read the connection, and a library quotes it

    IncidentNotifier()(context_of(ValueError(f"bad connection string: {journal_db.service_dsn}")))

    (posted,) = people.webhook.received
    assert posted["code"] == "UNEXPECTED"
    assert "bad connection string" in posted["cause"]
    assert password
    assert password not in str(posted) + people.mail.text_of()
    assert password not in str(world.sql("SELECT * FROM pv_backup.backup_audit_events"))
