"""Which dump, and whose roles: by when they were exported, never by their keys (SPEC F4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import NotPublished, TargetRefused
from pv_backup.services.manifest import Manifest


def choose_dump(backups: Iterable[Manifest], moment: datetime | None) -> tuple[Manifest, Manifest | None]:
    """The newest dump that was exported before a moment, and the role definitions that belong to it.

    Those of the dump's own day, else the newest ones: a dump's owners are seldom younger than it.

    :param backups: published ones; other types are passed over.
    :param moment: None: the newest of all.
    :returns: no roles, if none were exported before the moment.
    :raises NotPublished: if there is no dump.
    :raises TargetRefused: if all are later, naming the oldest.
    """
    known = sorted(backups, key=_exported_at)
    dumps = [backup for backup in known if backup.backup_type is ArtefactType.PG_DUMP]
    if not dumps:
        raise NotPublished(
            "the bucket holds no published dump",
            remedy="see why the daily dump fails, and run it before the next drill",
        )
    in_time = [backup for backup in known if moment is None or _exported_at(backup) <= moment]
    before = [backup for backup in in_time if backup.backup_type is ArtefactType.PG_DUMP]
    if not before:
        raise TargetRefused(
            f"{moment} is before the oldest dump in the bucket, {dumps[0].key} (exported at {dumps[0].exported_at})",
            remedy="choose a later target",
        )
    dump = before[-1]
    roles = [backup for backup in in_time if backup.backup_type is ArtefactType.GLOBALS]
    of_its_day = [backup for backup in roles if _day(backup) == _day(dump)]
    return dump, next(reversed(of_its_day or roles), None)


def _exported_at(backup: Manifest) -> datetime:
    return datetime.fromisoformat(backup.exported_at)


def _day(backup: Manifest) -> str:
    """The day in the key, `YYYY/MM/…_YYYYMMDD.enc`."""
    return backup.key.removesuffix(".enc").rpartition("_")[2]
