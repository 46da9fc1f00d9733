"""Two lines of telling people: a failed task's own callback, and its run's, which makes up for the first."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from pv_backup.notifiers.failures import alert_of_failure, was_told
from pv_backup.services.alerts import Alert, Level

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context


class FirstLine(BaseNotifier):
    """A task's `on_failure_callback`: tells of the failure, and leaves word for the second line.

    It runs in the task's own process, which Airflow ends `[core] task_success_overtime` (20 s) after the failure.
    """

    @property
    @abstractmethod
    def word(self) -> str:
        """The XCom by which the second line learns what became of it."""

    @abstractmethod
    def tell(self, alert: Alert) -> bool:
        """Tell people; False if a channel that was asked for did not take it. Never raises."""

    def notify(self, context: Context) -> None:
        """Tell of the failed task, unless its error was told where it was found."""
        alert = alert_of_failure(context)
        if was_told(context):
            self.log.info("%s was told where it was found", alert.incident)
            delivered = True
        else:
            delivered = self.tell(alert)
        if isinstance(context.get("exception"), BaseException):
            self._leave_word(context, alert, delivered)

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Nothing here is templated, and not every context of a failed run has a DAG that could render."""

    def _leave_word(self, context: Context, alert: Alert, delivered: bool) -> None:
        """Only the task's own process can push an XCom."""
        try:
            said = asdict(alert) | {"level": str(alert.level)}
            context["ti"].xcom_push(self.word, {"alert": said, "delivered": delivered})
        except Exception:
            self.log.exception("no XCom says that people were told; the run's own callback may tell once more")


class SecondLine(BaseNotifier):
    """A DAG's own `on_failure_callback`: silent where the first line was heard.

    A task whose process was killed runs no callback: then it says that a worker died (ERR-47-08). What the first line
    could not deliver it tries again, some moments later and in another process, the dag processor.

    :param first: the first line of the DAG's tasks.
    """

    def __init__(self, first: FirstLine) -> None:
        super().__init__()
        self.first = first

    def notify(self, context: Context) -> None:
        """Make up for the task by which the run failed."""
        try:
            word = self._word(context)
        except ImportError:
            # `airflow dags test` has no supervisor to ask; a task of it that is killed takes this very process along.
            return
        except Exception:
            self.log.exception("whether the task has told people is not known; so they are told")
            word = None
        if word is None:
            self.first.notify(context)
        elif not word["delivered"]:
            self.first.tell(Alert(**word["alert"] | {"level": Level(word["alert"]["level"])}))

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Nothing here is templated."""

    def _word(self, context: Context) -> dict[str, Any] | None:
        ti = context["ti"]
        word: dict[str, Any] | None = ti.xcom_pull(task_ids=ti.task_id, key=self.first.word, map_indexes=-1)
        return word
