"""The state machine on a real database: each move, each refusal, and two workers at once."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import (
    CircuitBreakerOpen,
    DayClosed,
    LeaseLost,
    RefusedError,
    RunAlive,
    TransitionRefused,
)
from pv_backup.services.models import BackupStatus, Outcome
from pv_backup.services.state import RunDead
from pv_backup.services.transitions import ALLOWED
from tests.integration.journal_world import ARTEFACT, DAY, ERROR, opened

S = BackupStatus
BARE = {(S.SUCCESS, S.EXPIRED), (S.EXPIRED, S.DELETED)}


@pytest.fixture
def world(journal_db):
    with opened(journal_db) as world:
        yield world


@pytest.mark.case("TC-NEG-06", "TC-INV-07")
class TestThe36Pairs:
    """By the bare door, and by the door that each outcome and each new attempt has."""

    def test_seven_moves_exist(self):
        assert {(str(origin), str(to)) for origin, to in ALLOWED} == {
            ("SCHEDULED", "RUNNING"),
            ("RUNNING", "SUCCESS"),
            ("SUCCESS", "EXPIRED"),
            ("EXPIRED", "DELETED"),
            ("RUNNING", "FAILED"),
            ("FAILED", "SCHEDULED"),
            ("SCHEDULED", "FAILED"),
        }

    def test_each_pair_is_made_or_refused_on_record(self, world):
        backup_id = world.open().backup_id
        for origin in S:
            for to in S:
                world.put_in(origin)
                before = len(world.refusals(backup_id))
                if (origin, to) in BARE:
                    world.machine.transition(backup_id, to)
                    assert world.row()["status"] == to
                    continue
                with pytest.raises(TransitionRefused) as refused:
                    world.machine.transition(backup_id, to)
                for name in (origin, to, backup_id):
                    assert name in refused.value.what
                assert world.row()["status"] == origin
                assert world.refusals(backup_id)[before:] == [(origin, to)]
        assert len(world.refusals(backup_id)) == 34

    @pytest.mark.parametrize("origin", [state for state in S if state is not S.RUNNING])
    def test_outcomes_come_only_from_running(self, world, origin):
        attempt = world.open()
        world.machine.record_artefact(attempt.lease, ARTEFACT, {})
        world.machine.record_verified(attempt.lease)
        world.put_in(origin)
        with pytest.raises(TransitionRefused, match=f"from {origin} to SUCCESS"):
            world.machine.succeed(attempt.lease)
        with pytest.raises(TransitionRefused, match=f"from {origin} to FAILED"):
            world.machine.fail(attempt.backup_id, **ERROR)
        assert world.refusals(attempt.backup_id) == [(origin, S.SUCCESS), (origin, S.FAILED)]
        assert world.row()["status"] == origin
        assert world.journal.event_of(attempt.backup_id) is None

    @pytest.mark.parametrize("origin", [state for state in S if state is not S.FAILED])
    def test_only_a_failed_attempt_is_scheduled_again(self, world, origin):
        attempt = world.open()
        world.put_in(origin)
        with pytest.raises(TransitionRefused, match=f"from {origin} to SCHEDULED"):
            world.machine.schedule_again(attempt.backup_id, max_replanification_cycles=3)
        assert world.refusals(attempt.backup_id) == [(origin, S.SCHEDULED)]
        assert world.row()["backup_id"] == UUID(attempt.backup_id)

    def test_only_reconciliation_fails_a_scheduled_row(self, world):
        attempt = world.open()
        world.put_in("SCHEDULED")
        with pytest.raises(TransitionRefused, match="only reconciliation"):
            world.machine.fail(attempt.backup_id, **ERROR)
        world.machine.fail(attempt.backup_id, **ERROR, by_reconciliation=True)
        assert world.row()["status"] == "FAILED"
        assert world.journal.event_of(attempt.backup_id).outcome == Outcome.FAILED

    def test_a_move_of_an_unknown_backup_is_refused(self, world):
        unknown = str(uuid4())
        with pytest.raises(TransitionRefused, match="no row has this backup_id"):
            world.machine.fail(unknown, **ERROR)
        assert world.refusals(unknown) == [(None, S.FAILED)]


@pytest.mark.case("TC-NOM-01")
class TestOpeningADay:
    def test_no_row_is_created_and_runs(self, world):
        attempt = world.open()
        row = world.row()
        assert attempt.object_key == row["object_key"] == "2026/03/backup_20260329.enc"
        assert (row["status"], row["day"], row["run_id"]) == ("RUNNING", DAY, "run 1")
        assert (row["backup_id"], row["lease_token"]) == (UUID(attempt.backup_id), UUID(attempt.lease.token))
        assert row["started_at"] < row["lease_expires_at"]
        assert world.machine.attempt(attempt.lease) == attempt

    def test_each_type_has_its_own_row(self, world):
        attempts = [
            world.machine.open_day(
                artefact_type=kind, day=DAY, run_id="run 1", lease_s=60, max_replanification_cycles=3
            )
            for kind in (ArtefactType.PG_DUMP, ArtefactType.GLOBALS, ArtefactType.BASEBACKUP)
        ]
        assert len({attempt.backup_id for attempt in attempts}) == 3

    def test_a_scheduled_row_is_taken_as_it_is(self, world):
        old = world.failed()
        scheduled = world.machine.schedule_again(old.backup_id, max_replanification_cycles=3)
        attempt = world.open(run_id="run 2")
        assert (attempt.backup_id, attempt.replanification_count) == (scheduled, 1)

    @pytest.mark.case("TC-NEG-06")
    def test_a_live_run_is_left_alone(self, world):
        attempt = world.open()
        with pytest.raises(RunAlive, match="run 1") as refused:
            world.open(run_id="run 2")
        assert not isinstance(refused.value, RunDead)
        assert world.refusals(attempt.backup_id) == [("RUNNING", "RUNNING")]
        world.leases.renew(attempt.lease, 60)

    def test_a_dead_run_is_named_so_that_it_can_be_settled(self, world):
        attempt = world.open()
        world.expire_lease()
        with pytest.raises(RunDead) as dead:
            world.open(run_id="run 2")
        assert dead.value.backup_id == attempt.backup_id
        assert world.row()["run_id"] == "run 1"

    def test_the_same_run_gets_its_row_again_and_fences_its_former_self(self, world):
        first = world.open()
        second = world.open()
        assert second.backup_id == first.backup_id
        with pytest.raises(LeaseLost, match="another worker"):
            world.leases.renew(first.lease, 60)

    @pytest.mark.parametrize("status", ["SUCCESS", "EXPIRED", "DELETED"])
    def test_a_published_day_is_closed(self, world, status):
        attempt = world.published()
        world.put_in(status)
        before = world.row()
        with pytest.raises(DayClosed, match=attempt.backup_id):
            world.open(run_id="run 2")
        assert world.row() == before

    def test_failed_becomes_a_new_attempt_and_the_old_one_stays_on_record(self, world):
        old = world.open()
        world.machine.record_artefact(old.lease, ARTEFACT, {"database": "shop"})
        world.machine.record_verified(old.lease)
        world.machine.fail(old.backup_id, **ERROR)
        new = world.open(run_id="run 2")
        row = world.row()
        assert UUID(new.backup_id).version == 4
        assert new.backup_id != old.backup_id
        assert (row["status"], row["replanification_count"], new.replanification_count) == ("RUNNING", 1, 1)
        cleared = (*ARTEFACT.__annotations__, "facts", "error_code", "error_text", "finished_at")
        assert {row[name] for name in cleared} == {None}
        (replaced,) = world.audit.events_of(old.backup_id)
        assert replaced.event_type == "attempt_replaced"
        assert replaced.details["new_backup_id"] == new.backup_id
        assert replaced.details["hash_sha3_256"] == ARTEFACT.hash_sha3_256
        assert replaced.details["error_text"] == "pg_dump was killed"
        assert world.journal.event_of(old.backup_id).outcome == Outcome.FAILED
        assert world.journal.event_of(new.backup_id) is None

    @pytest.mark.case("TC-INV-05")
    def test_a_success_after_a_failure_has_its_own_journal_event(self, world):
        old = world.failed()
        new = world.open(run_id="run 2")
        world.machine.record_artefact(new.lease, ARTEFACT, {})
        world.machine.record_verified(new.lease)
        world.machine.succeed(new.lease)
        assert world.journal.event_of(old.backup_id).outcome == Outcome.FAILED
        assert world.journal.event_of(new.backup_id).outcome == Outcome.SUCCESS


@pytest.mark.case("TC-NEG-08")
class TestCircuitBreaker:
    def test_it_opens_after_the_last_cycle_and_is_on_record(self, world):
        attempts = [world.failed(cycles=2) for _ in range(3)]
        assert [attempt.replanification_count for attempt in attempts] == [0, 1, 2]
        before = world.row()
        with pytest.raises(CircuitBreakerOpen, match="max_replanification_cycles is 2") as opened:
            world.open(cycles=2)
        assert "pg_dump was killed" in opened.value.what
        with pytest.raises(CircuitBreakerOpen):
            world.machine.schedule_again(attempts[-1].backup_id, max_replanification_cycles=2)
        assert world.row() == before
        assert world.refusals(attempts[-1].backup_id) == [("FAILED", "SCHEDULED")] * 2

    def test_a_higher_limit_closes_it_again(self, world):
        for _ in range(2):
            world.failed(cycles=1)
        with pytest.raises(CircuitBreakerOpen):
            world.open(cycles=1)
        assert world.open(cycles=2).replanification_count == 2


@pytest.mark.case("TC-INV-04", "TC-NOM-01")
class TestOutcomes:
    def test_success_writes_status_and_event_of_what_was_recorded(self, world):
        attempt = world.open()
        world.machine.record_artefact(attempt.lease, ARTEFACT, {"row_counts": {"public.t": 3}})
        world.machine.record_verified(attempt.lease)
        recorded = world.machine.artefact_of(attempt)
        assert (recorded.artefact, recorded.facts) == (ARTEFACT, {"row_counts": {"public.t": 3}})
        world.machine.succeed(attempt.lease)
        row, event = world.row(), world.journal.event_of(attempt.backup_id)
        assert (row["status"], row["lease_token"], row["lease_expires_at"]) == ("SUCCESS", None, None)
        assert (event.outcome, event.type, event.day) == ("SUCCESS", "pg_dump", DAY)
        assert (event.object_key, event.hash_sha3_256) == (attempt.object_key, ARTEFACT.hash_sha3_256)
        assert (event.size_bytes, event.k_backup_version, event.error_code) == (4711, 3, None)

    def test_no_success_without_a_recorded_artefact(self, world):
        attempt = world.open()
        with pytest.raises(RefusedError, match="no recorded artefact"):
            world.machine.succeed(attempt.lease)
        with pytest.raises(RefusedError, match="no recorded artefact"):
            world.machine.artefact_of(attempt)
        assert world.row()["status"] == "RUNNING"
        assert world.journal.event_of(attempt.backup_id) is None

    @pytest.mark.case("TC-ERR-08")
    def test_a_worker_without_its_lease_ends_nothing(self, world):
        zombie = world.open().lease
        world.machine.record_artefact(zombie, ARTEFACT, {})
        world.leases.acquire(zombie.backup_id, 60)
        for call in (
            lambda: world.machine.succeed(zombie),
            lambda: world.machine.fail(zombie.backup_id, **ERROR, lease=zombie),
            lambda: world.machine.record_artefact(zombie, ARTEFACT, {}),
            lambda: world.machine.attempt(zombie),
        ):
            with pytest.raises(LeaseLost, match="taken by another worker"):
                call()
        assert world.row()["status"] == "RUNNING"
        assert world.journal.event_of(zombie.backup_id) is None

    @pytest.mark.case("TC-INV-05")
    def test_success_never_contradicts_the_journal(self, world):
        attempt = world.open()
        world.machine.record_artefact(attempt.lease, ARTEFACT, {})
        world.machine.record_verified(attempt.lease)
        world.machine.fail(attempt.backup_id, **ERROR)
        world.put_in("RUNNING")
        lease = world.leases.acquire(attempt.backup_id, 60)
        with pytest.raises(TransitionRefused, match="the journal says FAILED"):
            world.machine.succeed(lease)
        assert world.row()["status"] == "RUNNING"
        assert world.journal.event_of(attempt.backup_id).outcome == Outcome.FAILED

    @pytest.mark.case("TC-ERR-01")
    def test_any_error_text_can_be_kept(self, world):
        attempt = world.open()
        world.machine.fail(attempt.backup_id, error_code="ERR-47-01", error_text="nul \0 and \udcff " + "x" * 10_000)
        text = world.journal.event_of(attempt.backup_id).error_text
        assert text.startswith("nul \N{REPLACEMENT CHARACTER} and \N{REPLACEMENT CHARACTER} xxx")
        assert len(text) == 4000
        assert world.row()["error_text"] == text
