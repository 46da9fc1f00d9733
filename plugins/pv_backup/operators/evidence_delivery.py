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


def deliver(document: str, evidence: Evidence, *, store: ObjectStore) -> Delivery:
    """Copy it to the bucket, and send it by mail and webhook; every failure is logged and named, and none raised.

    :param document: as it was signed.
    :param evidence: what the document says.
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


def _ways(store: ObjectStore, evidence: Evidence, document: str, page: str) -> dict[str, Callable[[], None]]:
    from pv_backup.notifiers.mail import MailNotifier
    from pv_backup.notifiers.webhook import WebhookNotifier
    from pv_backup.services.evidence.publishing import publish_copy

    send = {channel.name: channel.send_evidence for channel in (MailNotifier(), WebhookNotifier())}
    return {
        "bucket": partial(publish_copy, store.patient_for(PATIENCE_S), evidence, document=document, page=page),
        **{name: partial(by, evidence, document=document, page=page) for name, by in send.items()},
    }
