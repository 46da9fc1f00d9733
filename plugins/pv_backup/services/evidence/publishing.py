"""The bucket's copy of the evidence, and its page: it lives 30 days, as all there does (SPEC F4.4)."""

from __future__ import annotations

from typing import Final

from pv_backup.services.errors import NotPublished
from pv_backup.services.evidence.document import Evidence
from pv_backup.services.object_store import ObjectStore

PREFIX: Final = "evidence/"


def evidence_name(evidence: Evidence) -> str:
    """What its files are called everywhere, without their ending."""
    return f"drill_{evidence.drill_id}"


def evidence_key(evidence: Evidence) -> str:
    """The document's key, by the day on which the drill began (UTC)."""
    year, month = evidence.started_at[:4], evidence.started_at[5:7]
    return f"{PREFIX}{year}/{month}/{evidence_name(evidence)}.json"


def publish_copy(store: ObjectStore, evidence: Evidence, *, document: str, page: str) -> None:
    """Write document and page, which nothing overwrites later.

    :param document: as it was signed.
    :raises RefusedError: if something else is there already.
    :raises StoreUnavailable: if S3 does not answer.
    """
    key = evidence_key(evidence)
    store.put_once(key, document.encode(), content_type="application/json")
    store.put_once(key.removesuffix(".json") + ".html", page.encode(), content_type="text/html; charset=utf-8")


def evidence_keys(store: ObjectStore) -> list[str]:
    """The keys of all documents, by month."""
    listed = store.keys_between(PREFIX, f"{PREFIX}0", f"{PREFIX}9~")
    return [key for key in listed if key.endswith(".json")]


def read_copy(store: ObjectStore, drill_id: str) -> str:
    """A drill's document, as it lies there; nobody has checked its signature.

    :raises NotPublished: if the bucket has none.
    """
    for key in evidence_keys(store):
        if key.endswith(f"/drill_{drill_id}.json"):
            return b"".join(store.read(key).chunks()).decode()
    raise NotPublished(
        f"s3://{store.bucket} has no evidence of drill {drill_id}",
        remedy="take it from the journal database (restoration_evidence): the bucket keeps 30 days",
    )
