"""See from outside whether the day has its backup, knowing nothing of how it is made (INV-47-06)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.amazon.aws.sensors.s3 import S3KeySensor
from airflow.sdk.exceptions import AirflowSensorTimeout, TaskDeferralError

from pv_backup.operators.configuration import ConnectionIds, load_settings
from pv_backup.operators.days import day_of_run
from pv_backup.services.errors import BackupAbsent
from pv_backup.triggers.published_backup import LOOK_TIMEOUT, PublishedBackupTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.settings import Settings

# A trigger ends itself at its deadline; only a triggerer that is dead lets this pass.
_TRIGGERER_PATIENCE: Final = timedelta(seconds=30)
# One short try a look: the wait itself is the retry.
_CLIENT_OPTIONS: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    "read_timeout": 5,
    "retries": {"mode": "standard", "total_max_attempts": 1},
    "s3": {"addressing_style": "path"},
}


def keys_of(day: date) -> list[str]:
    """Object and manifest of a day's dump, spelt here a second time: a slip in the dump's spelling must be noticed."""
    stem = f"{day.year:04}/{day.month:02}/backup_{day.year:04}{day.month:02}{day.day:02}"
    return [f"{stem}.enc", f"{stem}.manifest.json"]


class PublishedBackupSensor(S3KeySensor):
    """Wait until the bucket has the day's object and its manifest, `watchdog_wait_s` at most.

    An S3 that does not answer is no reason to fail early, and none to be content at the end.

    :param relaunch_dag_id: if it has the run below already, an absent backup was told of when that was started.
    :param relaunch_run_id: `{day}` in it stands for the day, `YYYY-MM-DD`.
    :param connections: the Airflow connections to use.
    """

    def __init__(
        self, *, relaunch_dag_id: str, relaunch_run_id: str, connections: ConnectionIds | None = None, **kwargs: Any
    ) -> None:
        connections = connections or ConnectionIds()
        super().__init__(
            bucket_key="",
            aws_conn_id=connections.store,
            botocore_config=_CLIENT_OPTIONS,
            deferrable=True,
            **{"poke_interval": 10, **kwargs},
        )
        self.connections = connections
        self.relaunch_dag_id = relaunch_dag_id
        self.relaunch_run_id = relaunch_run_id

    def execute(self, context: Context) -> None:
        """Look once here, and leave the waiting to the triggerer.

        :raises BackupAbsent: if there is no time to wait.
        """
        settings = load_settings()
        self._aim(context, settings)
        present, error = self._look(context)
        if present:
            return
        wait = timedelta(seconds=settings.watchdog_wait_s)
        if not wait:
            raise self._absent(context, settings, error)
        self.log.info("%s is not there yet; waiting %s s for it", self.bucket_key, settings.watchdog_wait_s)
        self.defer(
            trigger=PublishedBackupTrigger(
                bucket_name=settings.bucket,
                bucket_key=self.bucket_key,
                deadline=(datetime.now(UTC) + wait).isoformat(),
                aws_conn_id=self.connections.store,
                botocore_config=_CLIENT_OPTIONS,
                poke_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=wait + LOOK_TIMEOUT + _TRIGGERER_PATIENCE,
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """Take the trigger's word.

        :raises BackupAbsent: if the time was up.
        """
        settings = load_settings()
        self._aim(context, settings)
        if not event["present"]:
            raise self._absent(context, settings, event["error"])
        self.log.info("%s is there", self.bucket_key)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Look again here when the triggerer failed us, so that its death is not taken for an absent backup."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (AirflowSensorTimeout, TaskDeferralError) as failure:
            self.log.warning("the triggerer did not keep its word: %s", failure)
            settings = load_settings()
            self._aim(context, settings)
            present, error = self._look(context)
            if not present:
                raise self._absent(context, settings, error) from failure
            return None

    def _aim(self, context: Context, settings: Settings) -> None:
        self.bucket_name, self.bucket_key = settings.bucket, keys_of(day_of_run(context))

    def _look(self, context: Context) -> tuple[bool, str | None]:
        try:
            return bool(self.poke(context)), None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no backup seen
            self.log.warning("S3 could not be asked: %s", error)
            return False, f"{type(error).__name__}: {error}"

    def _absent(self, context: Context, settings: Settings, error: str | None) -> BackupAbsent:
        day = day_of_run(context)
        keys = " and ".join(self.bucket_key)
        waited = f"after {settings.watchdog_wait_s} s of waiting"
        if error is None:
            what = f"{settings.bucket} has no published backup of {day} {waited}: {keys} are not both there"
        else:
            what = f"whether {settings.bucket} has a backup of {day} could not be seen {waited}, S3 fails: {error}"
        absent = BackupAbsent(
            what,
            remedy=f"nothing yet: {self.relaunch_dag_id} starts the dump again, and another alert follows if that "
            "fails; till then look at the dump's own alert",
        )
        absent.told = self._was_told(context, day)
        return absent

    def _was_told(self, context: Context, day: date) -> bool:
        run_id = self.relaunch_run_id.format(day=day)
        try:
            return context["ti"].get_dr_count(dag_id=self.relaunch_dag_id, run_ids=[run_id]) > 0
        except Exception:
            self.log.exception("whether run %s of %s exists is not known", run_id, self.relaunch_dag_id)
            return False
