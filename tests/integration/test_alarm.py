"""Alerts that really arrive: once an incident on each channel, whatever else is down, with no secret in them."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.sdk.configuration import conf

from dev.airflow_env import postgres_connection
from pv_backup.notifiers.incident import IncidentNotifier
from pv_backup.notifiers.lines import FirstLine, SecondLine
from pv_backup.notifiers.mail import MailNotifier
from pv_backup.notifiers.webhook import WebhookNotifier
from pv_backup.operators.alerting import alarm, alert_of, settle
from pv_backup.operators.configuration import ConnectionIds
from pv_backup.operators.workbench import journal_hook
from pv_backup.services import local_memory
from pv_backup.services.alerts import Alert
from pv_backup.services.errors import FailClosedError, RelaunchFailed
from tests.integration.journal_world import JournalWorld, opened
from tests.integration.wal_schedule import schedule_of
from tests.integration.wal_world import wait_until, wal_world
from tests.support.people import People
from tests.support.webhook import SECRET_PATH

pytestmark = pytest.mark.case("TC-ERR-02", "TC-ERR-03")

DAG_ID = "pv_backup_daily_dump"
BACKUP_ID = "11111111-2222-4333-8444-555555555555"
IDS = ConnectionIds()
ERROR = FailClosedError("Vault is sealed <at vault:8200>", remedy="unseal it, then trigger again")
ALERT = Alert.from_error(
    ERROR, dag_id=DAG_ID, day="2026-11-22", backup_id=BACKUP_ID, run_url="http://af/dags/pv_backup_daily_dump/runs/x"
)
MAIL_PASSWORD = "aPasswordOfTheMailServer"


def context_of(error: Exception, **more: Any) -> Any:
    """What Airflow hands to a failed task's callback."""
    ti = SimpleNamespace(dag_id=DAG_ID, task_id="stream_dump", log_url=ALERT.run_url, xcom_push=lambda *_: None)
    run = SimpleNamespace(run_after=datetime(2026, 11, 22, 2, tzinfo=UTC))
    return {"ti": ti, "params": {"day": "today"}, "dag_run": run, "exception": error, **more}


@pytest.fixture
def world(journal_db, monkeypatch) -> Iterator[JournalWorld]:
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_JOURNAL", json.dumps(postgres_connection(journal_db.service_dsn)))
    with opened(journal_db) as world:
        yield world


def recorded(world: JournalWorld) -> list[tuple[str, str | None]]:
    """(event, channel), oldest first."""
    events = world.sql("SELECT event_type, details FROM pv_backup.backup_audit_events ORDER BY id")
    return [(event["event_type"], event["details"].get("channel")) for event in events]


def test_an_alert_reaches_mail_and_webhook_with_all_that_a_person_needs(people: People, world: JournalWorld):
    alarm(IDS).tell(ALERT)

    assert people.mail.subjects == ["[pv-backup] CRITICAL ERR-47-02 pv_backup_daily_dump 2026-11-22"]
    html = people.mail.text_of()
    assert "Vault is sealed &lt;at vault:8200&gt;" in html
    for needed in ("unseal it, then trigger again", f'href="{ALERT.run_url}"', BACKUP_ID):
        assert needed in html
    (posted,) = people.webhook.received
    text = posted.pop("text")
    assert posted == json.loads(json.dumps(asdict(ALERT)))
    for needed in ("CRITICAL", "ERR-47-02", "2026-11-22", "unseal it", ALERT.run_url):
        assert needed in text
    assert sorted(recorded(world)) == [("alert", "log"), ("alert", "mail"), ("alert", "webhook")]


def test_an_incident_is_one_message_until_it_is_settled(people: People, world: JournalWorld):
    for _ in range(5):
        alarm(IDS).tell(ALERT)
    assert people.codes == ["ERR-47-02"]

    settle(context_of(ERROR), connections=IDS, day="2026-11-22")

    for _ in range(2):
        alarm(IDS).tell(ALERT)
    assert people.codes == ["ERR-47-02"] * 2


def test_the_success_of_one_day_does_not_settle_another_days_incident(people: People, world: JournalWorld):
    alarm(IDS).tell(ALERT)

    settle(context_of(ERROR), connections=IDS, day="2026-11-23")
    settle(context_of(ERROR), connections=IDS)

    alarm(IDS).tell(ALERT)
    assert people.codes == ["ERR-47-02"]


def refusing(people: People) -> None:
    people.mail.refusing, people.webhook.status = "451 come back later", 500


def test_a_channel_that_is_down_hides_nothing_and_is_told_the_next_time(people: People, world: JournalWorld, caplog):
    people.mail.refusing = "451 come back later"
    alarm(IDS).tell(ALERT)
    assert (people.mail.subjects, people.webhook.codes) == ([], ["ERR-47-02"])
    assert "ALERT critical ERR-47-02" in caplog.text
    assert "alert channel mail failed" in caplog.text
    assert sorted(recorded(world)) == [("alert", "log"), ("alert", "webhook")]

    people.mail.refusing = ""
    alarm(IDS).tell(ALERT)

    assert people.codes == ["ERR-47-02"]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_is_told_the_next_time(people: People, world: JournalWorld, status: int, caplog):
    people.webhook.status = status
    alarm(IDS).tell(ALERT)
    assert (len(people.mail.subjects), people.webhook.codes) == (1, [])
    assert f"HTTP status {status}" in caplog.text

    people.webhook.status = 200
    alarm(IDS).tell(ALERT)

    assert people.codes == ["ERR-47-02"]


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_network_that_swallows_all_costs_less_than_a_failed_task_has_left(
    people: People, black_hole: int, monkeypatch, caplog
):
    for name, value in people.environment.items():
        monkeypatch.setenv(name, json.dumps(json.loads(value) | {"port": black_hole}))
    journal = postgres_connection(f"postgresql://pv_backup_service:x@127.0.0.1:{black_hole}/journal")
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_JOURNAL", json.dumps(journal))
    began = time.monotonic()

    assert alarm(IDS).tell(ALERT) is False

    assert time.monotonic() - began < conf.getfloat("core", "task_success_overtime") - 2
    assert "ALERT critical ERR-47-02" in caplog.text


def test_a_channel_that_hangs_does_not_hold_the_other_back(
    people: People, world: JournalWorld, black_hole: int, monkeypatch
):
    connection = json.loads(people.mail.connection)
    extra = connection["extra"] | {"timeout": 3}
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SMTP", json.dumps(connection | {"port": black_hole, "extra": extra}))
    with ThreadPoolExecutor(1) as pool:
        telling = pool.submit(alarm(IDS).tell, ALERT)

        wait_until(lambda: people.webhook.codes, meaning="the webhook had it", timeout_s=2)

        assert not telling.done()
        assert telling.result() is False


def test_without_connections_the_log_alone_tells_and_says_so(world: JournalWorld, caplog):
    alarm(IDS).tell(ALERT)

    assert "ALERT critical ERR-47-02" in caplog.text
    for conn_id in ("pv_backup_smtp", "pv_backup_webhook"):
        assert f"the Airflow connection {conn_id} is not defined" in caplog.text
    assert recorded(world) == [("alert", "log")]
    assert "Traceback" not in caplog.text


def test_workers_that_come_at_once_send_one_message(people: People, world: JournalWorld):
    start = threading.Barrier(4)

    def work(_: int) -> None:
        start.wait()
        alarm(IDS).tell(ALERT)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))

    assert people.codes == ["ERR-47-02"]


@pytest.mark.case("TC-ERR-06")
def test_a_journal_that_is_down_makes_one_message_of_this_worker_and_one_again_after_it_was_back(
    stack, people: People, world: JournalWorld
):
    for outage in (1, 2):
        stack.postgres.stop()
        for _ in range(100):
            alarm(IDS).tell(ALERT)
        assert people.codes == ["ERR-47-02"] * outage
        stack.postgres.start()
        settle(context_of(ERROR), connections=IDS, day="2026-11-22")
    assert recorded(world) == []


@pytest.mark.case("TC-ERR-06")
def test_with_neither_journal_nor_a_memory_of_its_own_a_worker_tells_every_time(people: People, tmp_path, monkeypatch):
    monkeypatch.setattr(local_memory, "own_directory", lambda: tmp_path / "no" / "such")

    for _ in range(3):  # no connection leads to a journal at all
        alarm(IDS).tell(ALERT)

    assert people.codes == ["ERR-47-02"] * 3


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_many_failing_wal_runs_are_one_message(
    stack, source_cluster, journal_db, bucket, people: People, count: int, monkeypatch
):
    with wal_world(stack, source_cluster, journal_db, bucket) as world:
        schedule = schedule_of(world, journal_db, monkeypatch)
        monkeypatch.setenv("PV_BACKUP_WAL_DIRECTORY", str(world.directory / "gone"))
        for _ in range(count):
            assert schedule.run().error is not None

        assert people.codes == ["CONFIGURATION"]
        assert schedule.trail() == [("alert", "CONFIGURATION")] * 3


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


def notify_all(context: Any) -> None:
    """Call each notifier as Airflow does, which logs what one raises."""
    for notifier in (MailNotifier(), WebhookNotifier(), IncidentNotifier()):
        try:
            notifier(context)
        except Exception:
            logging.getLogger("airflow").exception("Failed to run task callback")


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


@pytest.mark.case("TC-ERR-05")
def test_the_watchdogs_notifiers_need_no_journal_and_remember_nothing(people: People):
    escalation = RelaunchFailed("the relaunch is late", remedy="look at the run")

    for _ in range(2):
        MailNotifier()(context_of(escalation))
        WebhookNotifier()(context_of(escalation))

    assert people.codes == ["ERR-47-05"] * 2
    assert "2026-11-22" in people.mail.subjects[0]


def test_what_was_told_where_it_was_found_is_not_told_again(people: People, world: JournalWorld):
    error = FailClosedError("Vault is sealed")
    error.told = True

    notify_all(context_of(error))

    assert people.codes == []


def test_a_notifier_without_its_connection_says_so_and_hides_nothing(capsys):
    MailNotifier()(context_of(ERROR))
    WebhookNotifier()(context_of(ERROR))

    said = capsys.readouterr().out
    assert "pv_backup_smtp is not defined" in said
    assert "pv_backup_webhook is not defined" in said


@pytest.mark.case("TC-ERR-08")
def test_a_failure_without_an_error_says_that_the_process_died(people: People, world: JournalWorld):
    IncidentNotifier()(context_of(ERROR, exception=None))

    assert people.codes == ["ERR-47-08"]
    assert "task stream_dump" in people.webhook.received[0]["cause"]


class Task:
    """A failed task and its run: what the first line leaves, the second finds."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def context(self, **more: Any) -> Any:
        context = context_of(ERROR, **more)
        context["ti"].xcom_push = lambda key, value: self.xcoms.update({key: json.loads(json.dumps(value))})
        context["ti"].xcom_pull = lambda *, task_ids, key, map_indexes: self.xcoms.get(key)
        return context

    def fails(self, line: FirstLine) -> None:
        line(self.context())

    def makes_its_run_fail(self, line: FirstLine) -> None:
        """In the dag processor, which knows of no error."""
        SecondLine(line)(self.context(exception=None))


@pytest.mark.parametrize("line", [IncidentNotifier(), MailNotifier()], ids=["with memory", "watchdog"])
def test_what_a_mail_server_refused_the_run_delivers_a_moment_later(
    people: People, world: JournalWorld, line: FirstLine
):
    task, people.mail.refusing = Task(), "451 come back later"
    task.fails(line)
    assert people.mail.subjects == []

    people.mail.refusing = ""
    task.makes_its_run_fail(line)

    assert [subject.split()[2] for subject in people.mail.subjects] == ["ERR-47-02"]
    assert len(people.webhook.codes) <= 1


@pytest.mark.parametrize("line", [IncidentNotifier(), MailNotifier()], ids=["with memory", "watchdog"])
def test_what_the_task_has_told_its_run_does_not_tell_again(people: People, world: JournalWorld, line: FirstLine):
    task = Task()

    task.fails(line)
    task.makes_its_run_fail(line)

    assert len(people.mail.subjects) == 1


@pytest.mark.case("TC-ERR-08")
@pytest.mark.parametrize("line", [IncidentNotifier(), MailNotifier()], ids=["with memory", "watchdog"])
def test_of_a_task_that_was_killed_its_run_tells(people: People, world: JournalWorld, line: FirstLine):
    Task().makes_its_run_fail(line)

    assert [subject.split()[2] for subject in people.mail.subjects] == ["ERR-47-08"]


def test_an_alert_in_mid_run_names_its_own_incident(people: People, world: JournalWorld):
    alert_of(context_of(ERROR), ERROR, backup_id=BACKUP_ID, connections=IDS, incident="ERR-47-02/a file")

    (posted,) = people.webhook.received
    assert (posted["incident"], posted["backup_id"]) == (f"{DAG_ID}/ERR-47-02/a file", BACKUP_ID)
