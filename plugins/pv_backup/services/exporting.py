"""The one streaming pass of a backup: export, compress, hash, encrypt, upload (SPEC F1.2 to F1.4)."""

from __future__ import annotations

import logging

from pv_backup.services.envelope import EnvelopeWriter
from pv_backup.services.errors import AttemptPublished, DayClosed, TaskStopped
from pv_backup.services.export_sources import ExportSource
from pv_backup.services.key_wrapping import new_dek, wiped
from pv_backup.services.lease_keeper import LeaseKeeper
from pv_backup.services.manifest import published
from pv_backup.services.multipart import ArtefactUpload
from pv_backup.services.part_sizes import MEBIBYTE
from pv_backup.services.pipeline import Streamed, stream
from pv_backup.services.progress import Progress, human_bytes, human_duration
from pv_backup.services.sealing import begin_artefact
from pv_backup.services.state import Artefact, Attempt
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)


class ArtefactExport:
    """One try at producing an attempt's artefact; it leaves a whole object or nothing.

    :param source: what to export.
    :param keeper: the lease under which the object may appear, being renewed by the caller.
    """

    def __init__(self, *, bench: Workbench, attempt: Attempt, source: ExportSource, keeper: LeaseKeeper) -> None:
        self._bench = bench
        self._attempt = attempt
        self._source = source
        self._keeper = keeper
        self._upload: ArtefactUpload | None = None

    def cancel(self) -> None:
        """Stop from a signal handler: the tool ends, nothing more is sent, :meth:`run` raises and cleans up."""
        self._keeper.stop(TaskStopped("this task was told to stop", remedy="the next try or reconciliation goes on"))
        if self._upload is not None:
            self._upload.cancel()
        self._source.cancel()

    def run(self) -> Streamed:
        """Stream the export into the bucket and record what its artefact is.

        :raises ExportFailed: ERR-47-01; nothing is left in the bucket.
        :raises FailClosedError: ERR-47-02, before a byte is exported when Vault is the reason.
        :raises UploadFailed: ERR-47-03.
        :raises AttemptPublished: if a cleared task would export what is published already.
        :raises DayClosed: if the bucket holds a published backup that the journal does not know.
        :raises LeaseLost: if another worker has taken over.
        """
        replace_etag = self._remnant()
        # Asked first: a worker that slept must not abort the upload of its successor.
        self._keeper.confirm()
        self._bench.store.abort_open_uploads(self._attempt.object_key)
        progress = Progress(label=self._attempt.object_key)
        dek = new_dek()
        with wiped(dek), self._source, progress.reporting():
            envelope = begin_artefact(
                self._bench.keys,
                dek,
                backup_id=self._attempt.backup_id,
                artefact_type=self._attempt.artefact_type,
                object_key=self._attempt.object_key,
            )
            upload = self._bench.store.begin_upload(
                self._attempt.object_key,
                metadata=envelope.header.metadata,
                replace_etag=replace_etag,
                part_bytes=self._bench.settings.part_size_mb * MEBIBYTE,
                expected_bytes=self._source.expected_bytes(),
                progress=progress,
            )
            self._upload = upload
            try:
                streamed = stream(
                    self._source.chunks(),
                    envelope=envelope,
                    sink=upload,
                    progress=progress,
                    check=self._keeper.check,
                )
                upload.complete(permit=self._keeper.confirm)
            except BaseException:
                upload.abort()
                raise
            facts = {
                "exported_bytes": streamed.exported_bytes,
                "export_seconds": round(progress.elapsed_s, 3),
                **self._source.facts(),
            }
            self._bench.machine.record_artefact(self._keeper.lease, self._artefact(envelope, streamed), facts)
        self._log_summary(streamed, progress)
        return streamed

    def _remnant(self) -> str | None:
        """The ETag of an unpublished object under our key, which may be replaced; None if the key is free."""
        key = self._attempt.object_key
        there = self._bench.store.head(key)
        if there is None:
            return None
        if manifest := published(self._bench.store, key):
            if manifest.backup_id == self._attempt.backup_id:
                raise AttemptPublished(
                    f"backup {manifest.backup_id} is published already and is not exported again",
                    remedy="clear record_success alone, or trigger a new run, which settles it",
                )
            raise DayClosed(
                f"s3://{self._bench.store.bucket}/{key} holds the published backup {manifest.backup_id}, "
                "which the journal does not know",
                remedy="find out what happened to the journal's row; a published day is never replaced",
            )
        log.info("replacing the unpublished remnant under %s", key)
        return there.etag

    @staticmethod
    def _artefact(envelope: EnvelopeWriter, streamed: Streamed) -> Artefact:
        header = envelope.header
        return Artefact(
            hash_sha3_256=streamed.hash_sha3_256,
            size_bytes=streamed.size_bytes,
            wrapped_dek=header.context.wrapped_dek,
            iv=header.iv.hex(),
            auth_tag=header.tag.hex(),
            k_backup_version=header.context.k_backup_version,
        )

    def _log_summary(self, streamed: Streamed, progress: Progress) -> None:
        log.info(
            "%s uploaded: %s exported, %s stored in %s, %s/s",
            self._attempt.object_key,
            human_bytes(streamed.exported_bytes),
            human_bytes(streamed.size_bytes),
            human_duration(progress.elapsed_s),
            human_bytes(streamed.exported_bytes / progress.elapsed_s),
        )
