"""A task that met several errors, and did all that they did not keep it from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pv_backup.services.errors import PvBackupError, explain


class Several(PvBackupError):
    """Speaks by the first of them, and says how many there are.

    :param subject: what the first one is about, where its own words don't say.
    """

    more: ClassVar[str] = "more, see the log"

    def __init__(self, errors: Sequence[Exception], *, subject: str = "") -> None:
        self.code, what, remedy = explain(errors[0])
        more = f" (and {len(errors) - 1} {self.more})" if len(errors) > 1 else ""
        super().__init__(f"{subject}: {what}{more}" if subject else f"{what}{more}", remedy=remedy)
