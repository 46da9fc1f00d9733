"""What reads a restored database from end to end, pg_amcheck and the count of the rows, finds what can't be read."""

from __future__ import annotations

import re
import struct

import pytest

from pv_backup.services.errors import RestoreFailed
from pv_backup.services.evidence.document import Result
from pv_backup.services.restoration.amcheck import amcheck
from pv_backup.services.row_counts import count_rows
from tests.integration.contract_world import KINDS, Restored
from tests.support.clusters import query_all

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-ERR-07")]

PAGE_BYTES = 8192


def test_a_sound_database_passes_pg_amcheck_and_so_does_the_whole_cluster(restored: Restored):
    restored.run("CREATE DATABASE closed ALLOW_CONNECTIONS false")

    one, every = amcheck(restored.server(KINDS)), amcheck(restored.server("postgres"), everywhere=True)

    assert (one.name, one.result) == (f"pg_amcheck ({KINDS})", Result.PASSED), one.detail
    assert (every.name, every.result) == ("pg_amcheck", Result.PASSED), every.detail
    relations, pages = (int(check.detail.split()[0]) for check in (one, every))
    assert 300 < relations < pages


@pytest.mark.parametrize(
    ("relation", "said"),
    [
        # The transaction that inserted a row, and a key.
        ("notes", r'heap table ".*\.public\.notes", block 1, offset 2'),
        ("notes_id_idx", r'btree index ".*\.public\.notes_id_idx"'),
    ],
)
def test_a_damaged_page_is_found(restored: Restored, relation: str, said: str):
    copy = restored.copy(
        "CREATE TABLE notes AS SELECT n AS id, 'note ' || n AS text FROM generate_series(1, 5000) n",
        "CREATE INDEX notes_id_idx ON notes (id)",
        "CHECKPOINT",
    )
    ((path,),) = query_all(restored.dsn(copy.database), f"SELECT pg_relation_filepath('{relation}')")
    postgres = restored.cluster.postgres
    postgres.stop()
    with (postgres.data_directory / path).open("r+b") as file:
        file.seek(PAGE_BYTES)  # the page after the first
        page = file.read(PAGE_BYTES)
        # Where its second line pointer leads (PostgreSQL 15, section 73.6); a key comes behind 8 bytes.
        item = struct.unpack_from("<I", page, 28)[0] & 0x7FFF
        place = item + (8 if relation == "notes_id_idx" else 0)
        file.seek(PAGE_BYTES + place)
        file.write(bytes(byte ^ 0xFF for byte in page[place : place + 4]))
    postgres.start()

    check = amcheck(copy)

    assert check.result is Result.FAILED
    assert re.search(said, check.detail), check.detail
    assert amcheck(restored.server("postgres"), everywhere=True).result is Result.FAILED


def test_rows_that_can_not_be_counted_fail_by_name(restored: Restored):
    copy = restored.copy("CREATE TABLE lost AS SELECT 1 AS n", "CHECKPOINT")
    ((path,),) = query_all(restored.dsn(copy.database), "SELECT pg_relation_filepath('lost')")
    (restored.cluster.postgres.data_directory / path).unlink()

    with pytest.raises(RestoreFailed, match=rf"{copy.database} can't be counted: could not open file"):
        count_rows(copy)
