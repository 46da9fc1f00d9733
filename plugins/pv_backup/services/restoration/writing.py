"""What we write ourselves while we restore: a disk that has no room for it is told as the disk that it is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pv_backup.services.errors import RestoreFailed
from pv_backup.services.restoration.tools import Place

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(what: str, place: Place) -> Iterator[None]:
    """Name what is written, should the system refuse it.

    :param what: the file, as the message names it.
    :param place: the disk that it goes to.
    :raises RestoreFailed: (StagingFull in a staging directory) in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        said = f"{what} could not be written to {place.directory}: {error.strerror or error}"
        if error.errno in _NO_ROOM:
            raise place.full(said) from error
        raise RestoreFailed(said, remedy="look at the disk, then restore again") from error
