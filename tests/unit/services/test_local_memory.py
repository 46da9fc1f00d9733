"""What a worker remembers of its alerts while the journal is away, and that forgetting is louder, never quieter."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pv_backup.services.alerts import Alert, Level
from pv_backup.services.local_memory import REMIND_AFTER_S, LocalMemory
from tests.support.recorder import Recorder

pytestmark = pytest.mark.case("TC-ERR-06")

ALERT = Alert(
    Level.CRITICAL, "ERR-47-06", "a_dag", "", "the journal is down", "bring it back", incident="a_dag/ERR-47-06"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "memory"


@pytest.fixture
def mail() -> Recorder:
    return Recorder()


def test_a_hundred_occurrences_are_one_message(directory: Path, mail: Recorder):
    told = [LocalMemory(directory).tell_once(ALERT, mail) for _ in range(100)]

    assert told == [True] + [False] * 99
    assert mail.sent == [ALERT.incident]


def test_nobody_else_may_read_what_went_wrong_here(directory: Path, mail: Recorder):
    LocalMemory(directory).tell_once(ALERT, mail)

    assert directory.stat().st_mode & 0o777 == 0o700


def test_each_channel_and_each_incident_by_itself(directory: Path, mail: Recorder):
    memory, other = LocalMemory(directory), replace(ALERT, incident="a_dag/ERR-47-03")

    assert memory.tell_once(ALERT, mail)
    assert memory.tell_once(ALERT, Recorder("webhook"))
    assert memory.tell_once(other, mail)
    assert not memory.tell_once(other, mail)


def test_what_was_not_delivered_is_news_still(directory: Path, mail: Recorder):
    memory, mail.down = LocalMemory(directory), True
    with pytest.raises(ConnectionError):
        memory.tell_once(ALERT, mail)

    mail.down = False

    assert memory.tell_once(ALERT, mail)


def test_it_is_told_again_after_a_day(directory: Path, mail: Recorder):
    memory = LocalMemory(directory)
    memory.tell_once(ALERT, mail)
    for age, news in ((REMIND_AFTER_S - 60, False), (REMIND_AFTER_S + 60, True)):
        (directory / "mail.json").write_text(json.dumps({ALERT.incident: time.time() - age}))
        assert memory.tell_once(ALERT, mail) is news


def test_what_the_journal_took_over_is_forgotten_by_flow(directory: Path, mail: Recorder):
    memory, other = LocalMemory(directory), replace(ALERT, incident="another_dag/ERR-47-06")
    for alert in (ALERT, other):
        memory.tell_once(alert, mail)

    memory.forget("a_dag/")

    assert memory.tell_once(ALERT, mail)
    assert not memory.tell_once(other, mail)


@pytest.mark.parametrize("content", ["", "no JSON", "[1, 2]", '{"a_dag/ERR-47-06": {"mail": 7}}', '{"a": "yesterday"}'])
def test_what_cannot_be_understood_is_told_and_then_remembered(directory: Path, mail: Recorder, content: str):
    directory.mkdir(mode=0o700)
    (directory / "mail.json").write_text(content)

    assert [LocalMemory(directory).tell_once(ALERT, mail) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("kind", ["a file", "open to others", "a link"])
def test_where_nothing_can_be_remembered_it_is_told(directory: Path, mail: Recorder, kind: str, caplog):
    if kind == "a file":
        directory.write_text("")
    elif kind == "open to others":
        directory.mkdir()
        directory.chmod(0o777)
    else:
        (directory.parent / "elsewhere").mkdir(mode=0o700)
        directory.symlink_to(directory.parent / "elsewhere")

    assert [LocalMemory(directory).tell_once(ALERT, mail) for _ in range(2)] == [True, True]
    assert "can't remember its alerts" in caplog.text


def test_of_many_processes_that_come_at_once_one_tells(directory: Path, mail: Recorder):
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: LocalMemory(directory).tell_once(ALERT, mail), range(24)))

    assert sum(told) == 1
