"""Refuse a source that cannot be backed up whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv_backup.operators.base import AttemptStepOperator
from pv_backup.operators.workbench import source_server

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.lease_keeper import LeaseKeeper
    from pv_backup.services.postgres import Server
    from pv_backup.services.state import Attempt
    from pv_backup.services.workbench import Workbench


class CheckSourceOperator(AttemptStepOperator):
    """Check version, tools and privileges before a byte is dumped, since a dump that lacks a table looks whole."""

    def check(self, server: Server) -> None:
        """Raise a ConfigurationError that names what cannot be read."""
        from pv_backup.services.source_check import check_source

        check_source(server)

    def work(self, context: Context, bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> None:
        """Check, or raise a ConfigurationError that names what is wrong."""
        server = source_server(self.connections, bench.settings)
        with keeper:
            self.check(server)
        self.log.info("%s can be backed up whole", server.name)


class CheckClusterOperator(CheckSourceOperator):
    """Check what a base backup needs of the whole cluster: settings, role, free slots, replication connections."""

    def check(self, server: Server) -> None:
        """Raise a ConfigurationError that names the setting or privilege."""
        from pv_backup.services.cluster_check import check_cluster

        check_cluster(server)
