"""Send the proof of a drill to everybody who shall have it; what can't be delivered now is lost to nobody.

The journal database keeps the lasting copy, and it is there before anything here begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from html import escape
from typing import TYPE_CHECKING

from pv_backup.services.errors import ChannelNotConfigured, PvBackupError

if TYPE_CHECKING:
    from pv_backup.services.evidence.document import Evidence
    from pv_backup.services.object_store import ObjectStore

log = logging.getLogger(__name__)

#: Seconds of patience with S3: a drill's end waits for it.
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Delivery:
    """What became of each copy.

    :ivar delivered: who has it: `bucket`, `mail`, `webhook`.
    :ivar failed: who should have it and has not, and why; a channel that nobody configured is in neither.
    """

    delivered: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def deliver(document: str, evidence: Evidence, *, store: Callable[[], ObjectStore]) -> Delivery:
    """Copy it to the bucket, and send it by mail and webhook; every failure is logged and named, and none raised.

    :param document: as it was signed.
    :param evidence: what the document says.
    :param store: gives the bucket; its failure is the bucket's alone.
    """
    from pv_backup.services.evidence.report import html
    from pv_backup.services.evidence.texts import message

    delivery = Delivery()
    try:
        page = html(document)
    except Exception:
        log.exception("the evidence can't be shown as a page; a few lines go in its place")
        page = f"<pre>{escape(message(evidence))}</pre>"
    for name, send in _ways(store, evidence, document, page).items():
        try:
            send()
        except ChannelNotConfigured as error:
            log.info("neither does evidence: %s", error)
        except PvBackupError as error:
            log.exception("the evidence did not get to %s", name)
            delivery.failed[name] = str(error)
        except Exception as error:
            # Nobody knows what an error that was not foreseen quotes; the log masks it, an XCom does not.
            log.exception("the evidence did not get to %s", name)
            delivery.failed[name] = type(error).__name__
        else:
            delivery.delivered.append(name)
    return delivery


def _ways(
    store: Callable[[], ObjectStore], evidence: Evidence, document: str, page: str
) -> dict[str, Callable[[], None]]:
    return {
        "bucket": partial(_to_bucket, store, evidence, document=document, page=page),
        "mail": partial(_by_mail, evidence, document=document, page=page),
        "webhook": partial(_by_webhook, evidence, document=document),
    }


def _to_bucket(store: Callable[[], ObjectStore], evidence: Evidence, *, document: str, page: str) -> None:
    from pv_backup.services.evidence.publishing import publish_copy

    publish_copy(store().patient_for(PATIENCE_S), evidence, document=document, page=page)


# Not of the notifiers, which are the watchdog's too: what tells of a drill is none of its business (INV-47-06).


def _by_mail(evidence: Evidence, *, document: str, page: str) -> None:
    """The page as the mail's body, page and document as files."""
    from pv_backup.hooks.mail_server import MailServerHook
    from pv_backup.services.evidence.publishing import evidence_name
    from pv_backup.services.evidence.texts import mail_subject

    name = evidence_name(evidence)
    MailServerHook().deliver(
        subject=mail_subject(evidence), html=page, files={f"{name}.json": document, f"{name}.html": page}
    )


def _by_webhook(evidence: Evidence, *, document: str) -> None:
    """A summary and the document; the page is for mail and bucket."""
    from pv_backup.hooks.webhook import WebhookHook
    from pv_backup.services.evidence.texts import webhook_json

    WebhookHook().post(webhook_json(evidence, document))
