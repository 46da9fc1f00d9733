"""Reconciliation while a server is away: told once, and what could not be settled is settled when it is back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import JournalUnavailable
from tests.integration.backup_world import DAY
from tests.integration.reconciliation_world import Scene, reconciliation_scene

pytestmark = pytest.mark.case("TC-NOM-07", "TC-ERR-08")

BASEBACKUP = "pv_backup_weekly_basebackup"


@pytest.fixture
def scene(stack, source_db, journal_db, bucket, tmp_path, monkeypatch) -> Iterator[Scene]:
    with reconciliation_scene(stack, source_db, journal_db, bucket, tmp_path, monkeypatch) as scene:
        yield scene


def outage(scene: Scene, code: str, away: Callable[[], Any], back: Callable[[], Any]) -> None:
    """Two rounds while a server is away are one alert; the next one settles what they could not."""
    before = scene.alerts()
    away()
    errors = [scene.reconcile(), scene.reconcile()]
    back()
    assert [getattr(error, "code", error) for error in errors] == [code, code]
    incident = f"pv_backup_reconciliation/{code}"
    assert scene.alerts()[len(before) :] == [("alert", incident)]
    assert scene.rows() == {("pg_dump", DAY): "RUNNING"}
    assert scene.reconcile() is None
    assert ("alert_settled", incident) in scene.alerts()


@pytest.mark.case("TC-ERR-02")
def test_a_sealed_vault_is_told_once_and_the_row_settled_after(scene: Scene):
    scene.dead_after_publishing()
    vault = scene.world.stack.vault
    outage(scene, "ERR-47-02", vault.seal, vault.start)
    assert scene.rows() == {("pg_dump", DAY): "SUCCESS"}


@pytest.mark.case("TC-ERR-03")
def test_an_s3_that_is_away_is_told_once_and_the_row_settled_after(scene: Scene):
    backup_id = scene.dead()
    s3 = scene.world.stack.s3
    outage(scene, "ERR-47-03", s3.kill, s3.start)
    assert scene.settlements() == [(backup_id, "FAILED")]
    assert scene.world.bucket.open_uploads() == []


@pytest.mark.case("TC-ERR-06")
def test_a_journal_that_is_away_is_told_once_by_this_worker(scene: Scene, caplog):
    scene.dead()
    postgres = scene.world.stack.postgres
    postgres.stop()
    caplog.clear()
    errors = [scene.reconcile(), scene.reconcile()]
    postgres.start()
    assert [type(error).code for error in errors if error] != []
    assert all(getattr(error, "code", "") == JournalUnavailable.code for error in errors)
    assert caplog.text.count("ALERT critical ERR-47-06") == 1
    assert scene.reconcile() is None
    assert scene.rows() == {("pg_dump", DAY): "FAILED"}


def test_one_row_that_cannot_be_settled_does_not_hold_up_the_others(scene: Scene):
    stuck = scene.dead_after_publishing()
    scene.dead(artefact_type=ArtefactType.BASEBACKUP)
    scene.world.journal.expire_lease()
    scene.world.stack.vault.seal()
    assert getattr(scene.reconcile(), "code", "") == "ERR-47-02"
    assert scene.rows() == {("pg_dump", DAY): "RUNNING", ("basebackup", DAY): "FAILED"}
    assert ("alert", f"{BASEBACKUP}/{DAY}/ERR-47-08") in scene.alerts()
    scene.world.stack.vault.start()
    assert scene.reconcile() is None
    assert scene.settlements()[-1] == (stuck, "SUCCESS")
