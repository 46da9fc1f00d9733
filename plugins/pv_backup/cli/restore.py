"""`restore`: a whole cluster, to a moment that its WAL covers, and a server on it."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pv_backup.services.errors import FormatRejected
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.postgres import Server
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import keys_from_environment

if TYPE_CHECKING:
    from pv_backup.services.restoration.cluster import Restored
    from pv_backup.services.restoration.target import RecoveryTarget

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_HELP = """\
Restore a whole cluster into an empty directory, recover it to a target, and leave it there, clean and stopped, or
with --start answering queries.

  1. see how far it can go         python -m pv_backup list
  2. restore it, and start it      python -m pv_backup restore /srv/pg --latest --start
     or to a moment                python -m pv_backup restore /srv/pg --target-time 2026-11-22T03:15:00+01:00 --start
  3. ask it something              the psql command that is printed at the end

The newest base backup before the target (where timelines part, by the history that the database had then) is
verified, unpacked and checked by pg_verifybackup; then PostgreSQL recovers with the WAL from the bucket, each file
verified before it is read. A target that the bucket does not lead to is refused, naming what is missing, before
anything is written.

Is that base backup damaged? --base takes another one, such as the one before it, with all the WAL since:
  python -m pv_backup restore /srv/pg2 --latest --base 2026/11/basebackup_20261115.enc
So it does with one whose timeline was abandoned (`list` says which), if the history that it leads to is wanted.

Run it as root or as the user that PostgreSQL will run as, on a machine with Debian's postgresql-15 and room for the
cluster. Interrupted or failed, it can be run again: into another directory, or this one emptied.

--start runs the server by settings of its own, its log and socket in DIRECTORY.server: without the cluster's preloaded
libraries, and without archiving, so that it does not write where the old one's WAL lies. For good, stop it, and start
PostgreSQL on DIRECTORY with your configuration: look at its paths, port and archive_command, and those in
postgresql.auto.conf.

exit status: 0 done, 1 not possible (the message says why and what to do), 2 an artefact is damaged or WAL is missing
"""


def add_commands(commands: Commands) -> None:
    """Add this room's command to the parser."""
    restore = commands.add_parser(
        "restore",
        help="restore a whole cluster into an empty directory, to a time, an LSN or the end of the WAL",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    restore.add_argument("directory", type=Path, help="the new data directory: empty, or not there yet")
    target = restore.add_mutually_exclusive_group(required=True)
    target.add_argument("--latest", action="store_true", help="to the last shipped commit")
    target.add_argument("--target-time", metavar="TIME", help="with a zone, such as 2026-11-22T03:15:00+01:00")
    target.add_argument("--target-lsn", metavar="LSN", help="such as 16/B374D848")
    target.add_argument("--target-name", metavar="NAME", help="of a restore point (pg_create_restore_point)")
    restore.add_argument(
        "--base",
        metavar="KEY",
        help="the base backup to begin with, by its key as `list` prints it (default: the newest that leads to the "
        "target)",
    )
    restore.add_argument("--start", action="store_true", help="leave a server running on the directory")
    restore.add_argument(
        "--port", type=_port, help="with --start: listen on 127.0.0.1 too, where the cluster's passwords count"
    )
    restore.set_defaults(run=_restore)


def _restore(options: argparse.Namespace, settings: Settings, store: ObjectStore) -> None:
    from pv_backup.services.restoration.cluster import ClusterRestore
    from pv_backup.services.restoration.steps import told_to

    if options.port and not options.start:
        raise SystemExit("--port says where a started server listens: it goes with --start")
    # Its steps are told as they come: an hour of silence at 04:10 helps nobody.
    logging.getLogger("pv_backup").setLevel(logging.INFO)
    tools, directory = Server({}, settings.pg_bin_dir), options.directory.absolute()
    restore = ClusterRestore(
        store=store,
        keys=keys_from_environment(settings),
        tools=tools,
        directory=directory,
        base_key=options.base,
    )
    steps: list[str] = []
    with told_to(lambda name, seconds: steps.append(f"{name} {seconds:.1f} s")):
        restored = restore.run(_target(options))
    _tell(directory, restored, steps)
    if options.start:
        from pv_backup.cli.starting import start_server

        started = start_server(
            tools, directory, port=options.port, superuser=restored.superuser, database=restored.database
        )
        print("running; ask it something, or stop it:")
        print(f"  {started.psql}")
        print(f"  {started.stop}")


def _tell(directory: Path, restored: Restored, steps: list[str]) -> None:
    last = restored.last_commit.isoformat() if restored.last_commit else "none after the base backup"
    print(f"restored: {directory}, from {restored.base}")
    print(f"  target       {restored.target}")
    print(f"  last commit  {last}")
    print(f"  timeline     {restored.timeline}, from LSN {restored.lsn}")
    print(f"  took         {restored.seconds:.1f} s: {', '.join(steps)}; {restored.wal_files} WAL files")


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _target(options: argparse.Namespace) -> RecoveryTarget:
    from pv_backup.services.restoration.target import RecoveryTarget

    readers = {
        "--target-time": (options.target_time, RecoveryTarget.at_time),
        "--target-lsn": (options.target_lsn, RecoveryTarget.at_lsn),
        "--target-name": (options.target_name, RecoveryTarget.at_name),
    }
    for option, (text, read) in readers.items():
        if text is None:
            continue
        if not text.strip():
            # A variable that was never set, most likely; the end of the WAL may be just what must not come back.
            raise FormatRejected(option, f"{text!r} is no target", remedy="say where to stop, or take --latest")
        return read(text)
    return RecoveryTarget()
