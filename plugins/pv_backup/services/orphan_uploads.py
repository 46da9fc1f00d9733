"""Multipart uploads that nobody will ever complete: their parts cost money, and no listing of objects shows them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.left_behind import LeftBehind
from pv_backup.services.object_store import ObjectStore, OpenUpload
from pv_backup.services.validation import artefact_type_of

log = logging.getLogger(__name__)

#: A WAL file has no row that says whether somebody is at work on it; no upload of one takes this long.
WAL_UPLOAD_TAKES_AT_MOST: Final = timedelta(hours=1)


def abort_orphans(
    store: ObjectStore,
    left_behind: LeftBehind,
    *,
    timeout_upload_s: float,
    attempt: Callable[[Callable[[], None]], None],
) -> list[OpenUpload]:
    """Abort every unfinished upload of the bucket that no live run can own.

    The bucket is listed before the rows are read: an upload that was there before its row was seen at rest belongs to
    a run that is over. A RUNNING row's uploads are left to that run, or to the settlement of it. WAL's are judged by
    their age, by the bucket's own clock. What bears no key of ours is somebody else's, and left alone.

    :param timeout_upload_s: how long a worker waits for a part that does not complete.
    :param attempt: is handed each abortion to make, so that one that fails does not stop the others.
    :returns: those that were aborted.
    :raises StoreUnavailable: if the bucket can't be listed.
    :raises JournalUnavailable: if the rows can't be read; nothing is aborted then.
    """
    of_days: list[OpenUpload] = []
    orphans: list[OpenUpload] = []
    too_old = max(timedelta(seconds=timeout_upload_s), WAL_UPLOAD_TAKES_AT_MOST)
    for upload in store.all_open_uploads():
        match artefact_type_of(upload.key):
            case None:
                log.warning("left alone: the unfinished upload %s of %s, no key of ours", upload.upload_id, upload.key)
            case ArtefactType.WAL:
                orphans += [upload] if upload.open_for > too_old else []
            case _:
                of_days.append(upload)
    if of_days:
        busy = left_behind.running({upload.key for upload in of_days})
        orphans += [upload for upload in of_days if upload.key not in busy]
    aborted: list[OpenUpload] = []
    for upload in orphans:

        def abort(upload: OpenUpload = upload) -> None:
            store.abort_upload(upload.key, upload.upload_id)
            aborted.append(upload)

        attempt(abort)
    return aborted
