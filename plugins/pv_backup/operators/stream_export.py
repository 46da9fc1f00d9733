"""Stream an export into the bucket: the long step."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from pv_backup.operators.base import AttemptStepOperator
from pv_backup.operators.workbench import source_server

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.export_sources import ExportSource
    from pv_backup.services.exporting import ArtefactExport
    from pv_backup.services.lease_keeper import LeaseKeeper
    from pv_backup.services.postgres import Server
    from pv_backup.services.settings import Settings
    from pv_backup.services.state import Attempt
    from pv_backup.services.workbench import Workbench


class StreamExportOperator(AttemptStepOperator):
    """Export, compress, hash, encrypt and upload in one pass.

    Subclasses say what is exported. A killed task ends its tool and leaves no multipart upload behind.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._export: ArtefactExport | None = None

    @abstractmethod
    def source(self, server: Server, settings: Settings) -> ExportSource:
        """What to export from this server."""

    def work(self, context: Context, bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> dict[str, Any]:
        """Return sizes in bytes, for the reader of the XCom tab."""
        from pv_backup.services.exporting import ArtefactExport

        source = self.source(source_server(self.connections, bench.settings), bench.settings)
        self._export = ArtefactExport(bench=bench, attempt=attempt, source=source, keeper=keeper)
        with keeper:
            streamed = self._export.run()
        return {"exported_bytes": streamed.exported_bytes, "size_bytes": streamed.size_bytes}

    def on_kill(self) -> None:
        """End the tool and the upload; `work` then raises and cleans up."""
        if self._export is not None:
            self._export.cancel()


class StreamDumpOperator(StreamExportOperator):
    """Stream one database as pg_dump's custom format, from which pg_restore can pick single tables."""

    def source(self, server: Server, settings: Settings) -> ExportSource:
        """pg_dump in a snapshot of its own, with row counts."""
        from pv_backup.services.export_sources import DumpSource

        return DumpSource(server=server)


class StreamBasebackupOperator(StreamExportOperator):
    """Stream the whole cluster as pg_basebackup's tar, which WAL rolls forward to any later second.

    Only a cluster with extra tablespaces is staged in clear, under a guard (INV-47-01).
    """

    def source(self, server: Server, settings: Settings) -> ExportSource:
        """pg_basebackup under a slot of its own."""
        from pv_backup.services.basebackup_source import BasebackupSource

        return BasebackupSource(server=server, staging=settings.staging_directory)
