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
        "DETAIL:  Failing row contains (1, x\nERROR:  secret\nHINT:  secret",
        'pg_restore: error: ERROR:  date/time field value out of range: "secret"',
        'pg_restore: error: ERROR:  malformed array literal: "a secret "one" of table "secret\nsecret"',
        'pg_restore: error: ERROR:  value "secret" is out of range for type integer',
        "CONTEXT:  SQL statement \"UPDATE person\nSET x='secret'\"\nPL/pgSQL function f() line 3 at SQL statement",
        "Command was: COMMENT ON TABLE public.person IS 'secret\nsecret';",
        "QUERY:  SELECT 'secret'\nLINE 1: SELECT 'secret'\n               ^",
        "NOTICE:  secret",
        "pg_restore: error: ERROR:  the secret\nsecret\nHINT:  secret\nCONTEXT:  PL/pgSQL function f() line 3 at RAISE",
    ],
)
def test_a_row_is_not_repeated_and_what_follows_is(line: str):
    kept = said(f"ERROR:  before\n{line}\npg_restore: error: after\n").text
    assert "secret" not in kept
    assert "ERROR:  before" in kept
    assert "pg_restore: error: after" in kept


@pytest.mark.parametrize(
    "line",
    [
        'pg_restore: error: could not execute query: ERROR:  role "archivist" does not exist',
        'pg_restore: error: could not execute query: ERROR:  extension "lacking" is not available',
        'pg_restore: error: could not execute query: ERROR:  tablespace "apart" does not exist',
        'pg_restore: error: could not execute query: ERROR:  invalid locale name: "xx_XX.utf8"',
        'ERROR:  collation "pg_catalog.xx" for encoding "UTF8" does not exist',
        'ERROR:  could not open extension control file "/usr/share/x.control": No such file or directory',
        'ERROR:  could not access file "$libdir/postgis-3": No such file or directory',
        'pg_restore: error: COPY failed for table "person": ERROR:  division by zero',
        'ERROR:  new row for relation "person" violates check constraint "short"',
        'ERROR:  duplicate key value violates unique constraint "person_pkey"',
        "pg_restore: from TOC entry 3; 1259 16384 TABLE person owner",
        "ERROR:  invalid page in block 3 of relation base/5/16384",
        "DETAIL:  max_connections = 10 is a lower setting than on the primary server, where its value was 100.",
    ],
)
def test_names_stay_readable(line: str):
    assert said(f"{line}\n").text == line


def test_what_broke_stays_readable_beside_the_row():
    assert said('CONTEXT:  COPY person, line 3, column name: "secret"\n').text == (
        "CONTEXT:  COPY person, line 3, column name …"
    )
    assert said("Command was: COMMENT ON TABLE public.person IS 'secret';\n").text == (
        "Command was: COMMENT ON TABLE …"
    )


def test_of_a_servers_log_no_statement_is_repeated():
    child = subprocess.Popen(
        [
            "printf",
            "%s",
            "custom 7 LOG:  statement: COMMENT ON x\n\tIS 'secret'\n"
            "custom 7 ERROR:  deadlock detected\n\tsecret\ncustom 7 STATEMENT:  SELECT 'secret'\n"
            "custom 7 LOG:  last completed transaction was at log time 2026-03-29 03:00:00+00\n"
            'custom 7 LOG:  restored log file "000000010000000000000003" from archive\n',
        ],
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert child.stdout is not None
    tail = Tail(child.stdout, name="postgres")
    child.wait()
    tail.end()
    assert tail.text.splitlines() == [
        "custom 7 LOG:  statement: …",
        "custom 7 ERROR:  deadlock detected",
        "custom 7 LOG:  last completed transaction was at log time 2026-03-29 03:00:00+00",
        'custom 7 LOG:  restored log file "000000010000000000000003" from archive',
    ]


def test_of_a_program_that_sees_no_rows_all_is_kept():
    words = 'pg_verifybackup: error: "base/5/1" is present on disk but not in the manifest'
    child = subprocess.Popen(["printf", "%s", words], stdout=subprocess.PIPE, bufsize=0)
    assert child.stdout is not None
    tail = Tail(child.stdout, name="pg_verifybackup")
    child.wait()
    tail.end()
    assert tail.text == words


def test_only_the_last_lines_are_told():
    tail = said("".join(f"line {n}\n" for n in range(1000)))
    assert tail.last().splitlines() == [f"line {n}" for n in range(988, 1000)]
    assert said("").last() == "it said nothing"
