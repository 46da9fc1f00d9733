"""How a session in a restored database begins: by nothing that its owner set for others (ALTER DATABASE, ALTER ROLE).

A limit that keeps the source's users in bounds would end a check of ours, and a sound backup would be called broken; a
setting that shows damaged pages as empty ones would let a broken one pass. What a client asks for goes before both.
"""

from __future__ import annotations

from typing import Final

_SETTINGS: Final = {
    # Libraries that are not here would close every connection.
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    # Neither pg_restore nor pg_amcheck get far without writing, nor as somebody else than the superuser.
    "default_transaction_read_only": "off",
    "role": "none",
    # A check has the limits that it sets itself.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "temp_file_limit": "-1",
    # Damage shall be seen.
    "zero_damaged_pages": "off",
    "ignore_checksum_failure": "off",
}


def session_options(**settings: str) -> str:
    """Options of libpq (`PGOPTIONS`).

    :param settings: more of them.
    """
    return " ".join(f"-c {name}={value}" for name, value in (_SETTINGS | settings).items())
