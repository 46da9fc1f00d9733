"""What a manifest must tell, by the type of its artefact."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pv_backup.cli.catalogue import describe
from pv_backup.services.manifest import Manifest
from tests.unit.services.manifest_samples import FACTS

COMMON: dict[str, Any] = FACTS | {"key": "2026/03/basebackup_20260329.enc", "backup_type": "basebackup"}
POSITIONS: dict[str, Any] = {
    "stopped_at": "2026-03-29T01:05:00Z",
    "timeline": 1,
    "start_lsn": "0/2000028",
    "stop_lsn": "0/2000100",
    "wal_segment_bytes": 1048576,
    "wal_files": ["000000010000000000000020", "000000010000000000000021"],
    "backup_manifest": "{}",
}


@pytest.mark.case("TC-NOM-03")
@pytest.mark.parametrize("missing", POSITIONS)
def test_a_base_backup_without_its_positions_is_refused_naming_what_is_missing(missing: str):
    with pytest.raises(ValidationError, match=f"a base backup without {missing}"):
        Manifest.model_validate(COMMON | POSITIONS | {missing: None})


@pytest.mark.case("TC-NOM-03")
def test_the_reason_may_stand_for_postgresqls_own_manifest():
    Manifest.model_validate(COMMON | POSITIONS | {"backup_manifest": None, "backup_manifest_absent": "too large"})


@pytest.mark.case("TC-NOM-01")
def test_other_types_need_no_positions():
    Manifest.model_validate(COMMON | {"backup_type": "globals"})


@pytest.mark.case("TC-NOM-03")
def test_a_person_is_told_timeline_range_and_wal_files():
    facts = describe(Manifest.model_validate(COMMON | POSITIONS | {"tablespaces": {"16389": "/srv/archive"}}))

    assert facts["WAL"] == "timeline 1, 0/2000028 to 0/2000100"
    assert facts["WAL files"] == "2, from 000000010000000000000020 to 000000010000000000000021"
    assert facts["tablespaces"] == "/srv/archive"
