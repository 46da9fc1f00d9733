"""Read the uploaded object back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv_backup.operators.base import AttemptStepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.lease_keeper import LeaseKeeper
    from pv_backup.services.state import Attempt
    from pv_backup.services.workbench import Workbench


class VerifyUploadOperator(AttemptStepOperator):
    """Download, decrypt with the key from Vault, hash and compare: what cannot be read back is no backup.

    What differs is marked invalid beside the object (ERR-47-04).
    """

    def work(self, context: Context, bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> None:
        """Raise an IntegrityError that names the difference."""
        from pv_backup.services.verification import read_back

        with keeper:
            read_back(bench, attempt, keeper)
