"""Alerts while a channel, the network or the journal is down: nothing is hidden, held back or told too often."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow.sdk.configuration import conf

from dev.airflow_env import postgres_connection
from pv_backup.operators.alerting import alarm, settle
from pv_backup.services import local_memory
from tests.integration.alarm_world import ALERT, ERROR, IDS, connected_journal, context_of, recorded
from tests.integration.journal_world import JournalWorld
from tests.integration.wal_world import wait_until
from tests.support.people import People

pytestmark = pytest.mark.case("TC-ERR-02", "TC-ERR-03")


@pytest.fixture
def world(journal_db, monkeypatch) -> Iterator[JournalWorld]:
    with connected_journal(journal_db, monkeypatch) as world:
        yield world


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
def black_hole() -> Iterator[socket.socket]:
    """A server that lets callers in and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_network_that_swallows_all_costs_less_than_a_failed_task_has_left(
    people: People, black_hole: socket.socket, monkeypatch, caplog
):
    port = black_hole.getsockname()[1]
    for name, value in people.environment.items():
        monkeypatch.setenv(name, json.dumps(json.loads(value) | {"port": port}))
    journal = postgres_connection(f"postgresql://pv_backup_service:x@127.0.0.1:{port}/journal")
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_JOURNAL", json.dumps(journal))
    to_tell = alarm(IDS)
    began = time.monotonic()

    assert to_tell.tell(ALERT) is False

    assert time.monotonic() - began < conf.getfloat("core", "task_success_overtime") - 2
    assert "ALERT critical ERR-47-02" in caplog.text


def test_a_channel_that_hangs_does_not_hold_the_other_back(
    people: People, world: JournalWorld, black_hole: socket.socket, monkeypatch
):
    connection = json.loads(people.mail.connection)
    changes = {"port": black_hole.getsockname()[1], "extra": connection["extra"] | {"timeout": 14}}
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SMTP", json.dumps(connection | changes))
    with ThreadPoolExecutor(1) as pool:
        telling = pool.submit(alarm(IDS).tell, ALERT)

        wait_until(lambda: people.webhook.codes, meaning="the webhook had it", timeout_s=12)

        assert not telling.done()
        black_hole.accept()[0].close()
        assert telling.result() is False


def test_without_connections_the_log_alone_tells_and_says_so(world: JournalWorld, caplog):
    alarm(IDS).tell(ALERT)

    assert "ALERT critical ERR-47-02" in caplog.text
    for conn_id in ("pv_backup_smtp", "pv_backup_webhook"):
        assert f"the Airflow connection {conn_id} is not defined" in caplog.text
    assert recorded(world) == [("alert", "log")]
    assert "Traceback" not in caplog.text


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
