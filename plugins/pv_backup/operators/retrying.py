"""Decide from an error's place in the tree whether a task gets another try, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryAction

from pv_backup.operators.configuration import load_settings
from pv_backup.services.errors import PvBackupError, RefusedError, RetryableError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.settings import Settings

MAX_RETRIES = 3
#: A task that waits for a person to mend what it needs tries again so often, at this distance: a night and a morning.
PATIENT_RETRIES: Final = 48
PATIENT_DELAY: Final = timedelta(minutes=15)


def tries_done(try_number: int, max_tries: int) -> int:
    """How many tries this run of the task has had; a cleared task goes on counting, and gets its retries anew."""
    return MAX_RETRIES - (max_tries - try_number)


def next_delay(error: BaseException, tries: int, settings: Settings) -> timedelta | None:
    """How long to wait before the next try of the same attempt, None if there is none (SPEC section 6).

    What is not of our tree is the world's doing (a full disk, a lost API server) and is tried again; of
    ours, only what says that it may pass.

    :param tries: how many there were, the one that just failed included.
    """
    if _is_final(error):
        return None
    if tries > settings.max_export_retries:
        return None
    return settings.delay(tries - 1)


def _is_final(error: BaseException) -> bool:
    return isinstance(error, PvBackupError) and not isinstance(error, RetryableError)


class BackupRetryPolicy(RetryPolicy):
    """Airflow asks this in the worker after a failure; the settings are only read then."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Apply :func:`next_delay`; what no setting can change is not kept waiting for them, nor its alert."""
        if _is_final(exception):
            return RetryDecision.fail(f"{type(exception).__name__} is not retried")
        try:
            delay = next_delay(exception, tries_done(try_number, max_tries), load_settings())
        except PvBackupError as error:
            return RetryDecision.fail(str(error))
        if delay is None:
            return RetryDecision.fail("no try is left")
        return RetryDecision.retry(delay, f"try {try_number + 1} of the same attempt in {delay.total_seconds():.1f} s")

    def serialize(self) -> dict[str, Any]:
        """Nothing to keep: the policy has no state of its own."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> BackupRetryPolicy:
        """The policy again."""
        return cls()


class PatientRetryPolicy(BackupRetryPolicy):
    """For a task whose failure would lose what hours of work have found: it waits until somebody unseals or repairs.

    Nothing is done in another way meanwhile (INV-47-03), and what the rules refuse is refused at once.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """As for every task first; where that gives up, slowly."""
        tries = PATIENT_RETRIES - (max_tries - try_number)
        decision = super().evaluate(exception, tries, MAX_RETRIES, context)
        if decision.action is RetryAction.RETRY or isinstance(exception, RefusedError) or try_number > max_tries:
            return decision
        return RetryDecision.retry(PATIENT_DELAY, f"it waits for whoever mends that: {decision.reason}")

    def waits(self, exception: BaseException, try_number: int, max_tries: int) -> bool:
        """Whether the next try needs a person, who must hear of it now."""
        return self.evaluate(exception, try_number, max_tries).retry_delay == PATIENT_DELAY

    def waits_for(self, try_number: int, max_tries: int) -> timedelta:
        """How long its tries last from now on, if each of them waits."""
        return (max_tries + 1 - try_number) * PATIENT_DELAY
