"""The notifier of every DAG that has a journal: one incident, one message on each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow.sdk import BaseNotifier

from pv_backup.notifiers.failures import alert_of_failure, was_told
from pv_backup.operators.configuration import ConnectionIds

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

#: XCom of a failed task: the code of what its own callback told.
TOLD_KEY: Final = "told"


class IncidentNotifier(BaseNotifier):
    """Tells of a failed task by log, mail and webhook, and remembers it in the journal.

    :param connections: the Airflow connections to use.
    """

    def __init__(self, *, connections: ConnectionIds | None = None) -> None:
        super().__init__()
        self.connections = connections or ConnectionIds()

    def notify(self, context: Context) -> None:
        """Tell of it, unless the error was told where it was found; never raises."""
        from pv_backup.operators.alerting import alarm

        alert = alert_of_failure(context)
        if was_told(context):
            self.log.info("%s was told where it was found", alert.incident)
        else:
            alarm(self.connections).tell(alert)
        if isinstance(context.get("exception"), BaseException):
            self._leave_word(context, alert.code)

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Nothing here is templated, and not every context of a failed run has a DAG that could render."""

    def _leave_word(self, context: Context, code: str) -> None:
        """Let the second line know that the task itself has spoken; only its own process can push an XCom."""
        try:
            context["ti"].xcom_push(TOLD_KEY, code)
        except Exception:
            self.log.exception("no XCom says that people were told; the run's own callback may tell once more")


class RunIncidentNotifier(IncidentNotifier):
    """The second line, for a whole run: a task whose process was killed runs no callback of its own.

    It runs in the dag processor, says that a worker died (ERR-47-08), and is silent where the task has spoken.
    """

    def notify(self, context: Context) -> None:
        """Tell of the run, if the task that it failed by has told nobody."""
        if not self._task_has_spoken(context):
            super().notify(context)

    def _task_has_spoken(self, context: Context) -> bool:
        try:
            ti = context["ti"]
            return ti.xcom_pull(task_ids=ti.task_id, key=TOLD_KEY, map_indexes=-1) is not None
        except ImportError:
            # `airflow dags test` has no supervisor to ask; a task of it that is killed takes this very process along.
            return True
        except Exception:
            self.log.exception("whether the task has told people is not known; so they are told")
            return False
