"""A WAL file that can't be had ends the recovery that asks for it, and no other."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from pv_backup.services.drill_errors import StagingFull
from pv_backup.services.errors import ReadBackMismatch, RestoreFailed
from pv_backup.services.restoration.feed import WalFeed
from pv_backup.services.restoration.tools import Place
from pv_backup.services.restoration.wal_archive import WalArchive

pytestmark = pytest.mark.case("TC-NOM-03", "TC-INV-08")

FILES = ["SOUND", "BAD", "LATER"]
OF_BAD: dict[str, Exception] = {
    "damaged": ReadBackMismatch("BAD is damaged"),
    "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "broken": OSError(errno.EIO, os.strerror(errno.EIO)),
    "no thread": RuntimeError("can't start new thread"),
    "no memory": MemoryError(),
}


# As another user, on a machine that shows each the processes of its own only.
AS_POSTGRES = 'exec setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"'
UNSEEING = ("unshare", "--mount", "sh", "-c", f"mount -t proc -o hidepid=2 proc /proc && {AS_POSTGRES}", "sh")


class Archive:
    """Has all files but one, and takes its time for the others."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def fetch(self, name: str, path: Path) -> None:
        if name == "BAD":
            raise self._error
        time.sleep(0.3)
        draft = path.with_suffix(".draft")
        draft.write_text(name)
        draft.rename(path)


@pytest.fixture
def feed(tmp_path: Path) -> Callable[..., WalFeed]:
    def make(kind: str, where: Path = tmp_path) -> WalFeed:
        directory = where / "wal"
        directory.mkdir()
        archive = cast("WalArchive", Archive(OF_BAD[kind]))
        place = Place(tmp_path / "sandbox", is_staging=True)
        return WalFeed(
            archive=archive, files=FILES, taken=range(2, 4), segment_bytes=1, directory=directory, place=place
        )

    return make


def ask(feed: WalFeed, name: str, target: Path, *within: str) -> int:
    """As PostgreSQL runs the command."""
    command = feed.restore_command.replace("%f", name).replace("%p", str(target)).replace("%%", "%")
    return subprocess.run([*within, "/bin/sh", "-c", command], check=False, timeout=60).returncode


def test_a_timeline_that_is_taken_has_a_history_and_the_one_behind_it_has_none(feed, tmp_path: Path):
    with feed("damaged") as served:
        answers = [ask(served, f"0000000{number}.history", tmp_path / "out") for number in (1, 2, 3, 4)]
        assert ask(served, "000000020000000000000001", tmp_path / "out") == 1, "its WAL is none of ours"

    assert answers == [1, 0, 0, 1]
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root restores as another user")
def test_the_servers_user_is_served_where_it_sees_no_process_of_ours(feed, open_path: Path):
    with feed("damaged", open_path) as served:
        shutil.chown(open_path / "wal", "postgres")
        before = os.umask(0o077)
        try:
            answers = [
                ask(served, name, open_path / "wal" / "out", *UNSEEING) for name in ("00000002.history", "ABSENT")
            ]
        finally:
            os.umask(before)

    assert answers == [0, 1]


def test_a_damaged_file_that_nobody_asks_for_ends_nothing(feed, tmp_path: Path):
    with feed("damaged") as served:
        served.prefetch()
        for name in ("SOUND", "LATER"):
            assert ask(served, name, tmp_path / "out") == 0
            assert (tmp_path / "out").read_text() == name
        assert ask(served, "ABSENT", tmp_path / "out") == 1
        assert served.failure is None


def test_a_file_that_is_asked_for_again_was_not_taken_away_meanwhile(feed, tmp_path: Path):
    """The last record begins in one file and ends in the next; the command sees a file and copies it a moment later."""
    with feed("damaged") as served:
        for name in ("SOUND", "LATER"):
            assert ask(served, name, tmp_path / "out") == 0
        assert ask(served, "ABSENT", tmp_path / "out") == 1, "so what was asked for before has been seen to"

        assert (tmp_path / "wal" / "SOUND").exists()
        assert ask(served, "SOUND", tmp_path / "out") == 0


@pytest.mark.parametrize("early", [True, False], ids=["fetched ahead", "fetched when asked for"])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("damaged", ReadBackMismatch),
        ("full", StagingFull),
        ("quota", StagingFull),
        ("broken", RestoreFailed),
        ("no thread", RestoreFailed),
        ("no memory", RestoreFailed),
    ],
)
def test_asked_for_it_ends_recovery_and_is_named(feed, tmp_path: Path, kind: str, error: type[Exception], early: bool):
    with feed(kind) as served:
        if early:
            served.prefetch()
        assert ask(served, "BAD", tmp_path / "out") == 255
        assert type(served.failure) is error
        assert "BAD" in served.failure.what
        assert ask(served, "ABSENT", tmp_path / "out") == 255, "that would be the end of the WAL"


def test_an_answer_that_cannot_be_written_ends_recovery_and_is_named(feed, tmp_path: Path):
    with feed("damaged") as served:
        (tmp_path / "wal" / "ABSENT.absent.draft").symlink_to(tmp_path / "nowhere" / "at all")
        assert ask(served, "ABSENT", tmp_path / "out") == 255
        assert type(served.failure) is RestoreFailed
        assert "ABSENT.absent could not be written" in served.failure.what


def test_a_defect_of_ours_ends_recovery_and_is_named(feed, tmp_path: Path, monkeypatch):
    def fail(self: WalFeed, name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(WalFeed, "_ask", fail)
    with feed("damaged") as served:
        assert ask(served, "SOUND", tmp_path / "out") == 255
        assert type(served.failure) is RestoreFailed
        assert "KeyError: 'SOUND'" in served.failure.what


def test_nobody_waits_for_a_feed_that_is_over(feed, tmp_path: Path):
    with feed("damaged") as served:
        pass
    assert ask(served, "SOUND", tmp_path / "out") == 255
