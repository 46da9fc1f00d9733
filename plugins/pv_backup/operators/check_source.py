"""Refuse a source that cannot be backed up whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv_backup.operators.base import AttemptStepOperator
from pv_backup.operators.workbench import source_server

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.lease_keeper import LeaseKeeper
    from pv_backup.services.state import Attempt
    from pv_backup.services.workbench import Workbench


class CheckSourceOperator(AttemptStepOperator):
    """Check version, tools and privileges before a byte is dumped, since a dump that lacks a table looks whole."""

    def work(self, context: Context, bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> None:
        """Raise a ConfigurationError that names what cannot be read."""
        from pv_backup.services.source_check import check_source

        server = source_server(self.connections, bench.settings)
        with keeper:
            check_source(server)
        self.log.info("%s can be read whole", server.name)
