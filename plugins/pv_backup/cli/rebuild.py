"""`rebuild-journal`: what a lost journal database knew, from the bucket."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from pv_backup.services.errors import ConfigurationError, ReadBackMismatch
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import keys_from_environment

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DSN_VARIABLE: Final = "PV_BACKUP_JOURNAL_DSN"

_HELP = """\
Rebuild what a lost journal database knew from the bucket: a row and a journal event for each published backup, an event
for each WAL file. Each is read back first: what does not decrypt to what its manifest says is named and left out.

  1. a new database, its roles   psql -d journal -f include/sql/roles.sql
  2. its schema                  alembic -c include/migrations/alembic.ini upgrade head
  3. this                        export PV_BACKUP_JOURNAL_DSN=postgresql://pv_backup_service:…@host/journal
                                 python -m pv_backup rebuild-journal

Do it before Airflow's DAGs run again. A journal that has rows is refused; one whose rebuild was interrupted is gone on
with. Failures, alerts and drills of the past are not in the bucket, and do not come back. The audit keeps who did this.

exit status: 0 done, 1 not possible (the message says why and what to do), 2 done, but something is damaged and left out
"""


def add_commands(commands: Commands) -> None:
    """Add this room's command to the parser."""
    rebuild = commands.add_parser(
        "rebuild-journal",
        help="fill an empty journal database with what the bucket holds, each artefact read back first",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rebuild.add_argument(
        "--journal-dsn-env",
        default=_DSN_VARIABLE,
        metavar="NAME",
        help="the variable that holds the libpq URI of role pv_backup_service (default: %(default)s)",
    )
    rebuild.set_defaults(run=_rebuild)


def _rebuild(options: argparse.Namespace, settings: Settings, store: ObjectStore) -> None:
    from pv_backup.services.database import sessions_for
    from pv_backup.services.rebuilding import JournalRebuild

    dsn = os.environ.get(options.journal_dsn_env)
    if not dsn:
        raise ConfigurationError(
            f"{options.journal_dsn_env} not set",
            remedy="export the libpq URI of the empty journal database there; an argument would show its password",
        )
    logging.getLogger("pv_backup.services.rebuilding").setLevel(logging.INFO)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    report = JournalRebuild(sessions=sessions_for(dsn), store=store, keys=keys_from_environment(settings), by=by).run()
    print(f"rebuilt: {len(report.backups)} backups and {report.wal_files} WAL files, {report.there} were there already")
    for key in report.backups:
        print(f"  {key}")
    if report.damaged:
        raise ReadBackMismatch(
            f"left out, for they are not what they must be: {'; '.join(report.damaged)}",
            remedy="the journal is rebuilt without them; the audit says of each why",
        )
