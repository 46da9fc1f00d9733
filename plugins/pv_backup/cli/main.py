"""Get at the backups with the bucket and the key alone: no Airflow, no journal database.

When everything is lost, in this order (docs/disaster.md says it word for word, and begins with Vault):

  1. list                                  what there is, and to which moment each base backup can be recovered
  2. restore DIRECTORY --latest --start    the whole cluster to the last shipped commit, and a server on it
     restore DIRECTORY --target-time …     or to a moment before the accident
  3. verify --all                          is the rest of the bucket sound?
  4. rebuild-journal                       before Airflow runs again: what the journal database knew

One database only, from a dump: `fetch` its roles (globals_…) into psql, then the dump (backup_…) into pg_restore.

Settings come from PV_BACKUP_BUCKET, PV_BACKUP_KMS_KEY_ID and PV_BACKUP_TRANSIT_KEY; S3 from the AWS variables
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL_S3 …); Vault from VAULT_ADDR and VAULT_TOKEN. Each command
tells more: restore --help.

`evidence verify FILE --public-key KEYFILE` checks the proof of a drill and needs none of this.

An error is told in one or two lines; PV_BACKUP_TRACEBACK=1 adds where in the program it came up.

Exit status: 0 done, 1 not possible (the message says why and what to do), 2 an artefact or evidence is damaged, or WAL
is missing, 130 interrupted, 141 the reader of our output left.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Final

from pv_backup.cli import artefacts, catalogue, evidence, rebuild, restore
from pv_backup.cli.screen import use_standard_error
from pv_backup.services.errors import IntegrityError, PvBackupError
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import store_from_environment

TRACEBACK_VARIABLE: Final = "PV_BACKUP_TRACEBACK"

EXIT_OK, EXIT_FAILED, EXIT_DAMAGED = 0, 1, 2
EXIT_INTERRUPTED, EXIT_READER_LEFT = 128 + signal.SIGINT, 128 + signal.SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status is that of the module's text. No traceback, unless the reader asks for it."""
    try:
        _run(arguments)
    except KeyboardInterrupt:
        print("interrupted; the bucket is as it was", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `fetch … | pg_restore --list` reads the beginning only; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_READER_LEFT
    except Exception as error:  # noqa: BLE001 - who reads this at 04:10 can do nothing with a traceback
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        print(_told(error), file=sys.stderr)
        return EXIT_DAMAGED if isinstance(error, IntegrityError) else EXIT_FAILED
    return EXIT_OK


def _run(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    use_standard_error()
    if "offline" in options:  # needs no settings and no bucket: an auditor has neither
        options.offline(options)
    else:
        settings = Settings.load()
        options.run(options, settings, store_from_environment(settings))


def _told(error: Exception) -> str:
    """What it was and what to do next; of what nobody foresaw, in one line."""
    if isinstance(error, IntegrityError):
        return f"damaged: {error}"
    if isinstance(error, PvBackupError):
        return f"error: {error}"
    text = " ".join(str(error).split())
    if isinstance(error, ImportError):
        return f"error: {text}. Next: install what docs/disaster.md names, into the Python that runs this"
    if isinstance(error, OSError) and error.errno is not None:
        return f"error: {text}"  # the output's: a file that exists, a full disk
    return (
        f"error: {type(error).__name__}: {text}. Next: see whether a setting (PV_BACKUP_…, AWS_…, VAULT_…) explains it,"
        f" run it again; for a report of the fault, with {TRACEBACK_VARIABLE}=1"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pv_backup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for room in (catalogue, restore, artefacts, rebuild, evidence):
        room.add_commands(commands)
    return parser
