"""Moments as SPEC section 5 wants them written."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """Write a moment as RFC 3339, UTC, `Z`, with its microseconds.

    Rounding `exported_at` would put commits of the same second on the wrong side of a restoration target.
    """
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
