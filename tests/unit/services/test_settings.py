"""Settings out of bounds: what guards safety is rejected, what tunes speed is clamped with a warning."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from pv_backup.services.errors import ConfigurationError
from pv_backup.services.settings import ENV_PREFIX, MULTIPART_ABOVE_BYTES, Settings

pytestmark = pytest.mark.case("TC-NEG-05")

PLACES = {"pg_bin_dir", "wal_directory", "staging_directory", "contract_directory", "evidence_key"}
NEEDED = {"bucket": "b", "kms_key_id": "k", "transit_key": "t"}

CLAMPED = {
    "delay_initial_ms": (1000, 10, 60_000),
    "factor": (2.0, 1, 10),
    "timeout_upload_s": (3600, 60, 21_600),
    "watchdog_wait_s": (300, 0, 3600),
    "relaunch_timeout_s": (7200, 60, 21_600),
    "lease_s": (60, 15, 600),
    "handover_s": (900, 60, 7200),
    "scheduled_timeout_s": (1800, 60, 21_600),
    "part_size_mb": (16, 5, 512),
    "wal_parallelism": (4, 1, 32),
}
REJECTED = {"max_export_retries": (3, 0, 3), "max_replanification_cycles": (3, 1, 10)}


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(ENV_PREFIX + name.upper(), raising=False)


def test_every_setting_of_the_specification_is_there_with_its_default():
    settings = Settings.load(NEEDED)
    specified = {**CLAMPED, **REJECTED}
    assert {name: getattr(settings, name) for name in specified} == {n: d for n, (d, _, _) in specified.items()}
    assert set(Settings.model_fields) == {*specified, *NEEDED, *PLACES}
    assert settings.wal_directory == Path("/var/wal-archive")


@pytest.mark.parametrize(("name", "bounds"), CLAMPED.items())
def test_speed_is_clamped_with_a_warning(name, bounds, caplog):
    _, low, high = bounds
    with caplog.at_level(logging.WARNING):
        assert getattr(Settings.load(NEEDED | {name: str(low - 1)}), name) == low
        assert getattr(Settings.load(NEEDED | {name: str(high + 1)}), name) == high
    warnings = [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"setting {name}")]
    assert len(warnings) == 2
    assert str(high + 1) in warnings[1]
    assert warnings[1].endswith(f"{high} is used instead")


@pytest.mark.parametrize(("name", "bounds"), [*CLAMPED.items(), *REJECTED.items()])
def test_the_bounds_themselves_pass_in_silence(name, bounds, caplog):
    for bound in bounds[1:]:
        assert getattr(Settings.load(NEEDED | {name: str(bound)}), name) == bound
    assert not caplog.records


@pytest.mark.parametrize(("name", "bounds"), REJECTED.items())
def test_safety_is_rejected(name, bounds, monkeypatch):
    _, low, high = bounds
    for value in (low - 1, high + 1):
        monkeypatch.setenv(ENV_PREFIX + name.upper(), str(value))
        with pytest.raises(ConfigurationError) as refused:
            Settings.load(NEEDED)
        for part in (ENV_PREFIX + name.upper(), repr(str(value)), f"{low} … {high}"):
            assert part in refused.value.what
        assert refused.value.remedy


@pytest.mark.parametrize("value", ["", None, "  "])
@pytest.mark.parametrize("name", NEEDED)
def test_what_has_no_default_must_be_there(name, value):
    given = {key: text for key, text in (NEEDED | {name: value}).items() if text is not None}
    with pytest.raises(ConfigurationError, match=f"{ENV_PREFIX}{name.upper()} is missing"):
        Settings.load(given)


@pytest.mark.parametrize(
    ("name", "value"), [("lease_s", "a minute"), ("factor", "nan"), ("factor", "inf"), ("part_size_mb", "16.5")]
)
def test_what_is_no_number_is_rejected(name, value):
    with pytest.raises(ConfigurationError, match=f"{ENV_PREFIX}{name.upper()} is '{value}'"):
        Settings.load(NEEDED | {name: value})


def test_all_problems_come_in_one_error():
    with pytest.raises(ConfigurationError) as refused:
        Settings.load({"max_export_retries": "4", "lease_s": "x", "leese_s": "60", "bucket": "b"})
    for name in ("MAX_EXPORT_RETRIES", "LEASE_S", "leese_s is no setting", "KMS_KEY_ID", "TRANSIT_KEY"):
        assert name in refused.value.what
    assert "BUCKET" not in refused.value.what


def test_the_environment_wins_unless_it_is_empty(monkeypatch):
    monkeypatch.setenv("PV_BACKUP_LEASE_S", "90")
    monkeypatch.setenv("PV_BACKUP_HANDOVER_S", "")
    monkeypatch.setenv("PV_BACKUP_PG_BIN_DIR", "/opt/pg/bin")
    monkeypatch.setenv("PV_BACKUP_JOURNAL_OWNER_DSN", "postgresql://not-a-setting")
    settings = Settings.load(NEEDED | {"lease_s": "120", "handover_s": "120"})
    assert (settings.lease_s, settings.handover_s) == (90, 120)
    assert settings.pg_bin_dir == Path("/opt/pg/bin")


def test_settings_are_frozen():
    settings = Settings.load(NEEDED)
    with pytest.raises(ValidationError, match="frozen"):
        settings.lease_s = 1


@pytest.mark.parametrize(
    ("delay", "factor", "warns"), [("99", "1", True), ("100", "1", False), ("99", "1.1", False), ("99", "0.5", True)]
)
def test_hammering_warns(delay, factor, warns, caplog):
    Settings.load(NEEDED | {"delay_initial_ms": delay, "factor": factor})
    assert any("hammers" in record.getMessage() for record in caplog.records) is warns


@pytest.mark.case("TC-ERR-01")
def test_delay_grows_by_the_factor_up_to_the_upload_timeout():
    settings = Settings.load(NEEDED | {"delay_initial_ms": "500", "factor": "3", "timeout_upload_s": "60"})
    assert [settings.delay(attempt).total_seconds() for attempt in range(6)] == [0.5, 1.5, 4.5, 13.5, 40.5, 60]
    assert settings.delay(100_000) == timedelta(seconds=60)


@pytest.mark.case("TC-NOM-01")
def test_multipart_threshold_is_safe_in_either_unit():
    assert MULTIPART_ABOVE_BYTES == 100_000_000 <= 100 * 1024 * 1024
