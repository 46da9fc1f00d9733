"""A database of a chosen size: half text and JSON, half documents that do not compress.

Of the documents half are bytea, which pg_dump writes as hexadecimal text of twice the size, and half large
objects, which it writes as they are. Text repeats only after 64 MiB, further apart than any window of the
compressors compared here.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterator

import psycopg

MEBIBYTE = 1024 * 1024
_TEXT_POOL_BYTES = 64 * MEBIBYTE
_TEXT_ROW_BYTES = 1024
_WORDS_PER_ROW = 120
DOCUMENT_BYTES = 64 * 1024
_VOCABULARY = [hashlib.shake_128(str(n).encode()).hexdigest(5)[: 3 + n % 8] for n in range(4096)]

_SCHEMA = """
CREATE TABLE statement (id bigint PRIMARY KEY, taken_at timestamptz, attributes jsonb, body text);
CREATE TABLE sealed_document (id bigint PRIMARY KEY, content bytea);
ALTER TABLE sealed_document ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE TABLE scan (id bigint PRIMARY KEY, content oid);
"""


def build(dsn: str, size_bytes: int) -> None:
    """Fill an empty database with about that many bytes of user data."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_SCHEMA)
        with connection.cursor().copy("COPY statement FROM STDIN") as copy:
            for row in statements(size_bytes // 2):
                copy.write_row(row)
        documents = size_bytes // 4 // DOCUMENT_BYTES
        with connection.cursor().copy("COPY sealed_document FROM STDIN") as copy:
            for number in range(documents):
                copy.write_row((number, os.urandom(DOCUMENT_BYTES)))
        with connection.cursor() as cursor:
            scans = ((number, os.urandom(DOCUMENT_BYTES)) for number in range(documents))
            cursor.executemany("INSERT INTO scan VALUES (%s, lo_from_bytea(0, %b))", scans)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def statements(size_bytes: int) -> Iterator[tuple[int, str, str, str]]:
    """Rows of table `statement`, of about 1 KiB of text each."""
    pool = [_prose(seed) for seed in range(min(size_bytes, _TEXT_POOL_BYTES) // _TEXT_ROW_BYTES)]
    for number in range(size_bytes // _TEXT_ROW_BYTES):
        attributes = {"court": f"TJ {number % 97}", "pages": number % 40, "witness": f"W{number * 7919 % 100003}"}
        taken_at = f"2026-01-{1 + number % 28:02} {number % 24:02}:{number % 60:02}+01"
        yield number, taken_at, json.dumps(attributes), pool[number % len(pool)]


def _prose(seed: int) -> str:
    """Words as frequent as the product of two uniform numbers is small: some are common, most are rare."""
    draws = array("H", hashlib.shake_128(seed.to_bytes(8, "big")).digest(4 * _WORDS_PER_ROW))
    pairs = zip(draws[::2], draws[1::2], strict=True)
    return " ".join([_VOCABULARY[(first * second) >> 20] for first, second in pairs])
