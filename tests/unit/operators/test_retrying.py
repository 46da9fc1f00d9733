"""Which error gets another try, when, and how often: the table of SPEC section 6 as the tasks follow it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk import RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryAction

from pv_backup.operators.retrying import BackupRetryPolicy, next_delay, tries_done
from pv_backup.services import errors
from pv_backup.services.errors import PvBackupError
from pv_backup.services.settings import Settings

pytestmark = pytest.mark.case("TC-ERR-01")

SETTINGS = {"bucket": "b", "kms_key_id": "k", "transit_key": "t"}
RETRIED = {"RetryableError", "ExportFailed", "TaskStopped", "JournalUnavailable", "StoreUnavailable"}
# Errors that are told in more than one word.
WORDS = {"FormatRejected": ["field", "reason"], "ChannelNotConfigured": ["mail", "pv_backup_smtp"]}
TREE = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, PvBackupError)}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch):
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"PV_BACKUP_{name.upper()}", value)


def error_of(name: str) -> PvBackupError:
    return TREE[name](*WORDS.get(name, ["it happened"]))


def test_the_table_names_classes_that_exist():
    assert set(TREE) >= RETRIED


@pytest.mark.parametrize("name", sorted(TREE))
def test_only_what_may_pass_is_tried_again(name: str):
    delay = next_delay(error_of(name), 1, Settings.load())

    assert (delay is not None) == (name in RETRIED)


@pytest.mark.case("TC-ERR-02")
@pytest.mark.parametrize("name", sorted(set(TREE) - RETRIED))
def test_what_cannot_pass_fails_at_its_first_try(name: str):
    decision = BackupRetryPolicy().evaluate(error_of(name), try_number=1, max_tries=3)

    assert decision.action is RetryAction.FAIL


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("a bug"), MemoryError()])
def test_what_is_not_of_our_tree_is_the_worlds_doing_and_tried_again(error: BaseException):
    assert next_delay(error, 1, Settings.load()) == timedelta(seconds=1)


@pytest.mark.parametrize(("try_number", "delay_s"), [(1, 1), (2, 2), (3, 4), (4, None)])
def test_delays_double_and_end_with_the_third_retry(try_number: int, delay_s: int | None):
    delay = next_delay(error_of("ExportFailed"), try_number, Settings.load())

    assert delay == (None if delay_s is None else timedelta(seconds=delay_s))


@pytest.mark.parametrize(("try_number", "max_tries", "tries"), [(1, 3, 1), (4, 3, 4), (5, 7, 1), (8, 7, 4)], ids=str)
def test_a_cleared_task_gets_its_retries_anew(try_number: int, max_tries: int, tries: int):
    """Airflow goes on counting tries over a clear, and raises max_tries by as many."""
    assert tries_done(try_number, max_tries) == tries


@pytest.mark.parametrize("allowed", [0, 1, 2, 3])
def test_max_export_retries_is_the_limit(allowed: int):
    settings = Settings.load({"max_export_retries": str(allowed)})

    given = [next_delay(error_of("ExportFailed"), number, settings) is not None for number in (1, 2, 3, 4)]

    assert given == [number <= allowed for number in (1, 2, 3, 4)]


def test_a_delay_never_exceeds_the_upload_timeout():
    settings = Settings.load({"delay_initial_ms": "60000", "factor": "10", "timeout_upload_s": "90"})

    assert next_delay(error_of("ExportFailed"), 3, settings) == timedelta(seconds=90)


def test_the_policy_says_when_it_will_try_again():
    decision = BackupRetryPolicy().evaluate(error_of("ExportFailed"), try_number=2, max_tries=3)

    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay == timedelta(seconds=2)
    assert "try 3 of the same attempt in 2.0 s" in (decision.reason or "")


def test_broken_settings_fail_the_task_rather_than_the_policy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PV_BACKUP_MAX_EXPORT_RETRIES", "99")

    decision = BackupRetryPolicy().evaluate(error_of("ExportFailed"), try_number=1, max_tries=3)

    assert decision.action is RetryAction.FAIL
    assert "PV_BACKUP_MAX_EXPORT_RETRIES" in (decision.reason or "")


def test_the_policy_survives_its_way_through_the_metadata_database():
    policy: RetryPolicy = BackupRetryPolicy.deserialize(BackupRetryPolicy().serialize())

    assert isinstance(policy, BackupRetryPolicy)
