"""Text that a database takes and a signature covers, whatever was read into it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

# PostgreSQL's text has no NUL; UTF-8 has no surrogates, by which Python keeps bytes that it could not decode.
_REFUSED: Final = re.compile("[\x00\ud800-\udfff]")


def storable(value: Any) -> Any:
    """Replace in all text of a JSON tree what no `text` column takes; a drill's proof must not be lost by one byte.

    Names of files and messages of tools come in encodings that nobody knows.
    """
    match value:
        case str():
            return _REFUSED.sub("\ufffd", value)
        case Mapping():
            return {storable(name): storable(item) for name, item in value.items()}
        case list():
            return [storable(item) for item in value]
        case _:
            return value
