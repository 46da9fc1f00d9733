"""Make a verified object a backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv_backup.operators.base import AttemptStepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.lease_keeper import LeaseKeeper
    from pv_backup.services.state import Attempt
    from pv_backup.services.workbench import Workbench


class PublishManifestOperator(AttemptStepOperator):
    """Write the manifest beside the object, last, so that a half-written backup can't be mistaken for one."""

    def work(self, context: Context, bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> str:
        """Return the manifest's key."""
        from pv_backup.services.artefacts import manifest_key
        from pv_backup.services.publication import publish

        with keeper:
            publish(bench, attempt, keeper)
        return manifest_key(attempt.object_key)
