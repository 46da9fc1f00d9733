"""Text that a database takes and a signature covers, whatever was read into it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

# PostgreSQL's text has no NUL; UTF-8 has no surrogates, by which Python keeps bytes that it could not decode.
_REFUSED: Final = re.compile("[\x00\ud800-\udfff]")


def storable(value: Any, *, most: int | None = None) -> Any:
    """Replace in all text of a JSON tree what no `text` column takes; a record must not be lost by one byte.

    Names of files and messages of tools come in encodings that nobody knows.

    :param most: characters of each text, which is cut there and says so; None cuts nothing, for a proof is whole.
    """
    match value:
        case str():
            clean = _REFUSED.sub("\ufffd", value)
            return clean if most is None or len(clean) <= most else clean[: most - 1] + "…"
        case Mapping():
            return {storable(name, most=most): storable(item, most=most) for name, item in value.items()}
        case list():
            return [storable(item, most=most) for item in value]
        case _:
            return value
