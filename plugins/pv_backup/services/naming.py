"""Let an error name the object that it is about: whoever reads bytes doesn't know where they came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pv_backup.services.errors import IntegrityError


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Put the key before what an integrity error says, if it is not there: a recovery reads thousands of objects.

    :raises IntegrityError: as it was raised inside.
    """
    try:
        yield
    except IntegrityError as error:
        if key not in error.what:
            error.what = f"{key}: {error.what}"
        raise
