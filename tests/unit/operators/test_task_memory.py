"""The memory that a task's tries share, whichever machines they run on."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from pv_backup.operators.task_memory import TaskMemory
from pv_backup.services.alerts import Alert
from pv_backup.services.errors import FailClosedError
from pv_backup.services.local_memory import REMIND_AFTER_S

pytestmark = pytest.mark.case("TC-ERR-07")

ALERT = Alert.from_error(FailClosedError("Vault is sealed"), dag_id="a_dag", day="")


@dataclass
class Mail:
    """A channel."""

    name: str = "mail"
    sent: list[Alert] = field(default_factory=list)
    is_down: bool = False

    def send(self, alert: Alert) -> None:
        if self.is_down:
            raise ConnectionError
        self.sent.append(alert)


class Unreachable:
    """The store of an Airflow whose API server is away."""

    def get(self, key: str) -> object:
        raise ConnectionError

    def set(self, key: str, value: object) -> None:
        raise ConnectionError


class States(dict[str, Any]):
    """Airflow's store."""

    def set(self, key: str, value: object) -> None:
        self[key] = json.loads(json.dumps(value))


def test_what_one_try_told_no_other_tells():
    states, mail = States(), Mail()

    assert [TaskMemory(states).tell_once(ALERT, mail) for _ in range(3)] == [True, False, False]
    assert len(mail.sent) == 1


def test_a_journal_that_comes_and_goes_makes_it_no_news():
    states, mail = States(), Mail()
    TaskMemory(states).tell_once(ALERT, mail)

    TaskMemory(states).forget(ALERT.incident)

    assert not TaskMemory(states).tell_once(ALERT, mail)


def test_each_channel_is_told_by_itself_and_again_after_a_day():
    states, mail, webhook = States(), Mail(is_down=True), Mail("webhook")
    memory = TaskMemory(states)
    with pytest.raises(ConnectionError):
        memory.tell_once(ALERT, mail)
    assert memory.tell_once(ALERT, webhook)

    mail.is_down = False
    assert memory.tell_once(ALERT, mail)
    assert not memory.tell_once(ALERT, webhook)

    states["told"] = {name: at - REMIND_AFTER_S for name, at in states["told"].items()}
    assert TaskMemory(states).tell_once(ALERT, webhook)


def test_what_airflow_can_not_keep_is_sent_rather_than_lost(caplog: pytest.LogCaptureFixture):
    mail = Mail()

    with caplog.at_level(logging.ERROR):
        assert [TaskMemory(Unreachable()).tell_once(ALERT, mail) for _ in range(2)] == [True, True]

    assert "the next one may tell it again" in caplog.text
