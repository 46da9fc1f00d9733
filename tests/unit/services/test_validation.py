"""Every bad value of SPEC section 5 is refused by its field's name, and every good one passes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pv_backup.services.artefacts import ArtefactType, object_key_of_day
from pv_backup.services.errors import FormatRejected
from pv_backup.services.validation import (
    MAX_SIZE_BYTES,
    check_backup_id,
    check_hash,
    check_object_key,
    check_size,
    check_timestamp,
)

pytestmark = pytest.mark.case("TC-NEG-05")

DAILY = [ArtefactType.PG_DUMP, ArtefactType.GLOBALS, ArtefactType.BASEBACKUP]
A_UUID4 = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
DIGEST = "0123456789abcdef" * 4
# Digits of another script are digits to str.isdigit and to \d, not to the rule.
ARABIC_FIVE = "\N{ARABIC-INDIC DIGIT FIVE}"
# What keys are made of, and what slips past careless patterns.
NOISE = st.sampled_from(f"0129/_.-abekp\n \0{ARABIC_FIVE}")


def refuses(field, check, value):
    with pytest.raises(FormatRejected) as refused:
        check(value)
    assert refused.value.field == field
    assert refused.value.code == "FAILED_FORMAT"
    assert refused.value.reason
    assert field in str(refused.value)


@given(st.uuids(version=4))
def test_any_uuid4_in_lower_case_is_a_backup_id(value):
    assert check_backup_id(str(value)) == str(value)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "f47ac10b-58cc-11f1-8567-0e02b2c3d479",  # version 1
        A_UUID4.upper(),
        A_UUID4.replace("-", ""),
        "{" + A_UUID4 + "}",
        A_UUID4 + "\n",
        "00000000-0000-4000-7000-000000000000",
        "00000000-0000-0000-0000-000000000000",
        None,
        UUID(A_UUID4),
    ],
)
def test_bad_backup_id(bad):
    refuses("backup_id", check_backup_id, bad)


@given(st.binary(min_size=32, max_size=32))
def test_any_lower_case_digest_is_a_hash(digest):
    assert check_hash(digest.hex()) == digest.hex()


@pytest.mark.parametrize(
    "bad", ["", DIGEST[1:], DIGEST + "0", DIGEST.upper(), DIGEST[:-1] + "g", DIGEST + "\n", " " + DIGEST[1:], None, 7]
)
def test_bad_hash(bad):
    refuses("hash_sha3_256", check_hash, bad)


@given(st.sampled_from(DAILY), st.dates(min_value=date(1000, 1, 1)))
def test_the_key_of_any_day_passes(artefact_type, day):
    key = object_key_of_day(artefact_type, day)
    assert check_object_key(artefact_type, key) == key


@given(st.sampled_from(DAILY), st.dates(min_value=date(1000, 1, 1)), st.text(NOISE, max_size=3), st.integers(0, 40))
def test_a_key_with_anything_put_into_it_is_refused(artefact_type, day, noise, at):
    key = object_key_of_day(artefact_type, day)
    changed = key[:at] + noise + key[at:]
    assume(changed != key)
    refuses(f"s3_object_key_{key.split('/')[2].split('_')[0]}", lambda k: check_object_key(artefact_type, k), changed)


@pytest.mark.parametrize(
    ("artefact_type", "bad"),
    [
        (ArtefactType.PG_DUMP, "2026/02/backup_20260230.enc"),
        (ArtefactType.PG_DUMP, "2026/03/backup_20260228.enc"),
        (ArtefactType.PG_DUMP, "2025/02/backup_20260228.enc"),
        (ArtefactType.PG_DUMP, "2026/02/basebackup_20260228.enc"),
        (ArtefactType.PG_DUMP, "0000/01/backup_00000101.enc"),
        (ArtefactType.PG_DUMP, "/2026/02/backup_20260228.enc"),
        (ArtefactType.PG_DUMP, "2026/02/../02/backup_20260228.enc"),
        (ArtefactType.PG_DUMP, f"2026/02/backup_202602{ARABIC_FIVE}8.enc"),
        (ArtefactType.PG_DUMP, "2026/02/backup_20260228.manifest.json"),
        (ArtefactType.PG_DUMP, None),
        (ArtefactType.BASEBACKUP, "2026/02/backup_20260228.enc"),
        (ArtefactType.GLOBALS, "2026/02/backup_20260228.enc"),
    ],
)
def test_bad_key_of_a_day(artefact_type, bad):
    field = {"pg_dump": "backup"}.get(artefact_type, str(artefact_type))
    refuses(f"s3_object_key_{field}", lambda key: check_object_key(artefact_type, key), bad)


@pytest.mark.parametrize("good", ["wal/0000000100000000000000FF.enc", "wal/00000002.history.enc"])
def test_good_wal_key(good):
    assert check_object_key(ArtefactType.WAL, good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "0000000100000000000000FF.enc",
        "wal/0000000100000000000000ff.enc",
        "wal/0000000100000000000000F.enc",
        "wal/0000000100000000000000FF.partial.enc",
        "wal/0000000100000000000000FF.history.enc",
        "wal/00000002.enc",
        "wal/0000000a.history.enc",
        "wal/0000000100000000000000FF.enc\n",
        "wal/../0000000100000000000000FF.enc",
        "2026/02/backup_20260228.enc",
    ],
)
def test_bad_wal_key(bad):
    refuses("s3_object_key_wal", lambda key: check_object_key(ArtefactType.WAL, key), bad)


@given(st.integers(1, MAX_SIZE_BYTES))
def test_any_size_in_bounds_passes_as_number_and_as_text(size):
    assert check_size(size) == check_size(str(size)) == size


@given(st.one_of(st.integers(max_value=0), st.integers(min_value=MAX_SIZE_BYTES + 1)))
def test_any_size_out_of_bounds_is_refused(size):
    refuses("size_bytes", check_size, size)
    refuses("size_bytes", check_size, str(size))


@pytest.mark.parametrize(
    "bad", ["", "1.0", "1e3", "0x10", "+1", " 1", "1\n", "007", "1_000", ARABIC_FIVE, 1.0, True, None]
)
def test_bad_size(bad):
    refuses("size_bytes", check_size, bad)


@given(st.datetimes(min_value=datetime(1000, 1, 1)))
def test_any_utc_instant_passes(instant):
    aware = instant.replace(tzinfo=UTC)
    assert check_timestamp(aware.isoformat().replace("+00:00", "Z")) == aware


def test_nanoseconds_are_cut_to_microseconds():
    assert check_timestamp("2026-03-29T01:00:00.123456789Z") == datetime(2026, 3, 29, 1, 0, 0, 123456, tzinfo=UTC)
    assert check_timestamp("2026-03-29T01:00:00.5Z") - check_timestamp("2026-03-29T01:00:00Z") == timedelta(seconds=0.5)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "2026-03-29T01:00:00",
        "2026-03-29T01:00:00+00:00",
        "2026-03-29T01:00:00z",
        "2026-03-29t01:00:00Z",
        "2026-03-29 01:00:00Z",
        "2026-02-30T01:00:00Z",
        "2026-03-29T24:00:00Z",
        "2026-03-29T01:00:60Z",
        "2026-03-29T01:00Z",
        "2026-03-29T01:00:00.Z",
        "20260329T010000Z",
        "2026-03-29T01:00:00Z\n",
        f"2026-03-29T01:00:0{ARABIC_FIVE}Z",
        None,
    ],
)
def test_bad_timestamp(bad):
    refuses("timestamp", check_timestamp, bad)


def test_a_long_bad_value_is_quoted_in_part():
    with pytest.raises(FormatRejected) as refused:
        check_hash("f" * 1_000_000)
    assert len(str(refused.value)) < 400
