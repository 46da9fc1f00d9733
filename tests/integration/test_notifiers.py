"""What Airflow's callbacks tell of a failed task: the task's own first, and its run's what that one could not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pv_backup.notifiers.incident import IncidentNotifier
from pv_backup.notifiers.lines import FirstLine, SecondLine
from pv_backup.notifiers.mail import MailNotifier
from pv_backup.notifiers.webhook import WebhookNotifier
from pv_backup.services.errors import FailClosedError, RelaunchFailed
from tests.integration.alarm_world import ERROR, connected_journal, context_of, notify_all
from tests.integration.journal_world import JournalWorld
from tests.support.people import People

pytestmark = pytest.mark.case("TC-ERR-02", "TC-ERR-03")


@pytest.fixture
def world(journal_db, monkeypatch) -> Iterator[JournalWorld]:
    with connected_journal(journal_db, monkeypatch) as world:
        yield world


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
