"""The evidence of a drill as one page for people: what an auditor is handed, beside the document that proves it.

The page proves nothing itself, and says so: anybody can write HTML. It tells how the document is checked.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pv_backup.services.evidence.document import Check, Evidence, Result
from pv_backup.services.evidence.publishing import evidence_name
from pv_backup.services.evidence.signed import Signature
from pv_backup.services.evidence.texts import span
from pv_backup.services.evidence.verification import read_unverified
from pv_backup.services.progress import human_bytes

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE: Final = Path(__file__).with_name("report.html.j2")


def html(document: str | Evidence) -> str:
    """One page of HTML that needs nothing beside it: no script, no picture, no font, no network.

    :param document: the signed text; or evidence that nobody could sign, whose page says so.
    :raises EvidenceInvalid: if the text is no document of evidence. Its signature is not checked here.
    """
    evidence: Evidence
    signature: Signature | None
    if isinstance(document, Evidence):
        evidence, signature, digest = document, None, ""
    else:
        evidence, signature = read_unverified(document)
        digest = hashlib.sha3_256(document.removesuffix("\n").encode()).hexdigest()
    checks = [("both", check) for check in evidence.checks]
    checks = [(str(leg.leg), check) for leg in evidence.legs for check in leg.checks] + checks
    return _template().render(
        evidence=evidence,
        signature=signature,
        digest=digest,
        file=f"{evidence_name(evidence)}.json",
        artefacts=[(str(leg.leg), used) for leg in evidence.legs for used in leg.artefacts],
        checks=checks,
        tally=_tally([check for _, check in checks]),
    )


def _tally(checks: list[Check]) -> str:
    """`12 passed, 1 skipped`."""
    counts = Counter(check.result for check in checks)
    told = [f"{counts[result]} {result.lower()}" for result in Result if counts[result]]
    return ", ".join(told) or "none was made"


def _moment(text: str | None) -> str:
    """RFC 3339 as a person reads it; nothing is rounded, since a target may lie between two microseconds."""
    return text.replace("T", " ").removesuffix("Z") + " UTC" if text else "—"


def _second(text: str) -> str:
    """As :func:`_moment`, without the fraction of a second."""
    return _moment(text.partition(".")[0] + "Z" if "." in text else text)


@cache
def _template() -> Template:
    # Imported here: an auditor's `verify` must not need it.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"span": span, "size": human_bytes, "moment": _moment, "second": _second}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
