"""What is kept of a program's words: that the disk is full, however it says so, and no row that it quotes."""

from __future__ import annotations

import subprocess

import pytest

from pv_backup.services.restoration.said import Tail

pytestmark = pytest.mark.case("TC-NOM-04")


def said(text: str) -> Tail:
    child = subprocess.Popen(["printf", "%s", text], stdout=subprocess.PIPE, bufsize=0)
    assert child.stdout is not None
    tail = Tail(child.stdout, name="printf")
    child.wait()
    tail.end()
    return tail


@pytest.mark.parametrize(
    ("line", "is_full"),
    [
        ('PANIC:  could not write to file "pg_wal/xlogtemp.1": No space left on device', True),
        (
            'ERROR:  could not extend file "base/5/1": wrote only 4096 of 8192 bytes\nHINT:  Check free disk space.',
            True,
        ),
        ("tar: base/5/1: Cannot write: Disk quota exceeded", True),
        ("pg_restore: error: could not execute query", False),
    ],
)
def test_a_full_disk_is_known_by_its_words(line: str, is_full: bool):
    assert said(f"{line}\nmore\n").no_room == is_full


@pytest.mark.parametrize(
    "line",
    [
        "DETAIL:  Failing row contains (1, secret\nsecret: secret, 2).",
        "DETAIL:  Key (name, born)=(secret, secret) already exists.",
        'CONTEXT:  COPY person, line 3, column name: "secret"',
        "CONTEXT:  COPY person, line 3: secret",
        'pg_restore: error: ERROR:  invalid input syntax for type integer: "secret"',
        "2026-11-23 03:10:00.123 UTC [7] DETAIL:  Failing row contains (secret).",
    ],
)
def test_a_row_is_not_repeated_and_what_follows_is(line: str):
    kept = said(f"ERROR:  before\n{line}\nHINT:  after\n").text
    assert "secret" not in kept
    assert "ERROR:  before" in kept
    assert "HINT:  after" in kept


def test_only_the_last_lines_are_told():
    tail = said("".join(f"line {n}\n" for n in range(1000)))
    assert tail.last().splitlines() == [f"line {n}" for n in range(988, 1000)]
    assert said("").last() == "it said nothing"
