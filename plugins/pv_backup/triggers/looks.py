"""The pace of a trigger that looks again and again until its time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime


async def looks_until(deadline: str, every_s: float) -> AsyncIterator[bool]:
    """Yield before each look whether it is the last; one is always made.

    :param deadline: RFC 3339; the last look is made then.
    :param every_s: seconds between two looks.
    """
    end = datetime.fromisoformat(deadline)
    is_last = False
    while not is_last:
        is_last = datetime.now(UTC) >= end
        yield is_last
        left = (end - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(max(0.0, min(every_s, left)))
