"""The figures of docs/metrics.md, as a StatsD exporter and an OpenTelemetry collector receive them from the tasks."""

from __future__ import annotations

import atexit
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import opentelemetry.metrics
import pytest
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.sdk._shared.observability.metrics.otel_logger import flush_otel_metrics
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from pv_backup.operators.configuration import ConnectionIds
from pv_backup.operators.metrics import report_backups
from pv_backup.operators.record_success import RecordSuccessOperator
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.export_sources import DumpSource, GlobalsSource
from tests.integration.journal_world import JournalWorld, opened
from tests.integration.wal_schedule import Schedule, schedule_of
from tests.integration.wal_world import wal_world
from tests.support.documented_metrics import PREFIX, documented
from tests.support.statsd import StatsdListener, statsd_listener

pytestmark = pytest.mark.case("TC-NOM-01", "TC-NOM-02", "TC-NOM-03")


@contextmanager
def metrics_on() -> Iterator[None]:
    """As Airflow's task process begins, by the environment; off again at the end."""
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
    try:
        yield
    finally:
        stats.initialize(factory=NoStatsLogger, export_legacy_names=True)


@pytest.fixture
def statsd(monkeypatch) -> Iterator[StatsdListener]:
    with statsd_listener() as listener:
        for name, value in listener.environment.items():
            monkeypatch.setenv(name, value)
        with metrics_on():
            yield listener


@pytest.fixture
def schedule(stack, source_cluster, journal_db, bucket, monkeypatch) -> Iterator[Schedule]:
    with wal_world(stack, source_cluster, journal_db, bucket) as world:
        yield schedule_of(world, journal_db, monkeypatch)


@pytest.fixture
def world(journal_db, monkeypatch) -> Iterator[JournalWorld]:
    """A journal, and this process's connection to it."""
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_JOURNAL", journal_db.service_dsn)
    with opened(journal_db) as world:
        yield world


def record_success(backup_id: str) -> None:
    operator = RecordSuccessOperator(task_id="record_success", backup_id=backup_id)
    context: Any = {"ti": SimpleNamespace(dag_id="pv_backup_daily_dump", log_url="", try_number=1, max_tries=0)}
    operator.execute(context)


def drill_document(*legs: str, target: str = "latest") -> str:
    """What figures read of a drill's document; without legs: of both."""
    told = [{"leg": leg, "verdict": "PASSED"} for leg in legs or ("logical", "physical")]
    return json.dumps({"evidence": {"legs": told, "target": target}, "signature": {}})


def test_the_tasks_send_every_documented_figure_and_no_other(schedule: Schedule, statsd: StatsdListener):
    world = schedule.world
    world.segments(2)
    schedule.run_until_well()
    by_wal = statsd.gauges()
    backup = world.backup
    backup.back_up(GlobalsSource(server=backup.server))
    backup.back_up(BasebackupSource(server=backup.server))
    backup.journal.sql(
        "INSERT INTO pv_backup.restoration_evidence (drill_id, verdict, rto_s, rpo_s, document)"
        " VALUES (gen_random_uuid(), 'PASSED', 61.5, 7, %s), (gen_random_uuid(), 'FAILED', NULL, NULL, '{}')",
        drill_document(),
    )
    dump = backup.open()
    backup.export(dump, DumpSource(server=backup.server))
    backup.verify(dump)
    backup.publish(dump)
    record_success(dump.backup_id)
    by_success = statsd.gauges()

    assert set(by_wal) | set(by_success) == documented()

    (row,) = backup.journal.sql("SELECT * FROM pv_backup.backup_executions WHERE type = 'pg_dump'")
    assert by_success["pv_backup.pg_dump.last_success"] == pytest.approx(row["finished_at"].timestamp(), abs=0.01)
    assert by_success["pv_backup.pg_dump.size_bytes"] == row["size_bytes"]
    assert by_success["pv_backup.pg_dump.duration_s"] == pytest.approx(
        (row["finished_at"] - row["started_at"]).total_seconds()
    )
    facts = row["facts"]
    assert by_success["pv_backup.pg_dump.rate"] == pytest.approx(facts["exported_bytes"] / facts["export_seconds"])
    assert 0 <= by_success["pv_backup.pg_dump.age_s"] < 60
    assert 0 <= by_success["pv_backup.wal.age_s"] < 60
    assert (by_success["pv_backup.drill.rto_s"], by_success["pv_backup.drill.rpo_s"]) == (61.5, 7)
    assert by_success["pv_backup.drill.last_success"] == pytest.approx(time.time(), abs=120)
    assert by_wal["pv_backup.wal.shipped"] >= 2
    assert by_wal["pv_backup.wal.size_bytes"] > 0
    assert by_wal["pv_backup.wal.rate"] > 0
    assert by_wal["pv_backup.wal.last_success"] == pytest.approx(time.time(), abs=120)
    assert (by_wal["pv_backup.wal.backlog"], by_wal["pv_backup.wal.oldest_s"]) == (0, 0)


def test_a_run_that_cannot_ship_tells_its_backlog_and_no_success(schedule: Schedule, statsd: StatsdListener):
    schedule.world.segments(2)
    schedule.world.backup.stack.vault.seal()

    assert schedule.run().error is not None

    sent = statsd.gauges()
    assert sent["pv_backup.wal.backlog"] >= 2
    assert sent["pv_backup.wal.oldest_s"] > 0
    assert sent["pv_backup.wal.shipped"] == 0
    assert not {"pv_backup.wal.last_success", "pv_backup.wal.rate", "pv_backup.wal.size_bytes"} & set(sent)


class TestTheFiguresOfTheJournal:
    def shown(self, statsd: StatsdListener) -> dict[str, float]:
        report_backups(ConnectionIds())
        return statsd.gauges()

    def test_a_flow_that_never_succeeded_has_none(self, world: JournalWorld, statsd: StatsdListener):
        nothing = {"pv_backup.drill.open_incidents": 0}
        assert self.shown(statsd) == nothing
        world.failed()
        assert self.shown(statsd) == nothing

    def test_the_age_is_that_of_the_data_and_grows(self, world: JournalWorld, statsd: StatsdListener):
        world.published()
        # The source's clock and ours need not agree to the second.
        for ago, age in (("90 minutes", 5400), ("-2 seconds", 0)):
            world.sql(
                "UPDATE pv_backup.backup_executions SET facts = jsonb_build_object('exported_at', to_char("
                "(clock_timestamp() - %s::interval) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))",
                ago,
            )
            assert self.shown(statsd)["pv_backup.pg_dump.age_s"] == pytest.approx(age, abs=5)

    def test_a_drill_of_one_leg_silences_nothing_and_a_chosen_time_tells_no_age(
        self, world: JournalWorld, statsd: StatsdListener
    ):
        def drilled(days_ago: int, rto_s: float, rpo_s: float, document: str) -> None:
            world.sql(
                "INSERT INTO pv_backup.restoration_evidence (drill_id, verdict, rto_s, rpo_s, document, recorded_at)"
                " VALUES (gen_random_uuid(), 'PASSED', %s, %s, %s, now() - make_interval(days => %s))",
                *(rto_s, rpo_s, document, days_ago),
            )

        def of_drills() -> dict[str, float]:
            sent = self.shown(statsd)
            return {name: sent[f"pv_backup.drill.{name}"] for name in ("last_success", "rto_s", "rpo_s")}

        drilled(95, 61.5, 7, drill_document())
        drilled(2, 1, 2, drill_document("logical"))
        drilled(1, 3, 4, drill_document("physical"))
        old = pytest.approx(time.time() - 95 * 86400, abs=120)
        assert of_drills() == {"last_success": old, "rto_s": 61.5, "rpo_s": 7}

        drilled(0, 50, 864000, drill_document(target="2026-03-29T03:00:30Z"))
        assert of_drills() == {"last_success": pytest.approx(time.time(), abs=120), "rto_s": 50, "rpo_s": 7}

    @pytest.mark.parametrize("status", ["SUCCESS", "EXPIRED", "DELETED"])
    def test_an_old_success_stays_the_last_one(self, world: JournalWorld, statsd: StatsdListener, status: str):
        world.published()
        world.sql("UPDATE pv_backup.backup_executions SET finished_at = finished_at - interval '31 days'")
        world.put_in(status)

        assert time.time() - self.shown(statsd)["pv_backup.pg_dump.last_success"] > 31 * 86400

    def test_of_two_days_the_newer_data_counts_whichever_was_recorded_last(
        self, world: JournalWorld, statsd: StatsdListener
    ):
        world.published()
        world.sql(
            "UPDATE pv_backup.backup_executions"
            """ SET facts = '{"exported_at": "2026-03-29T01:00:00.000000Z"}', size_bytes = 2, day = day + 1"""
        )
        world.published()
        world.sql(
            "UPDATE pv_backup.backup_executions"
            """ SET facts = '{"exported_at": "2026-03-28T01:00:00.000000Z"}', size_bytes = 1 WHERE size_bytes <> 2"""
        )

        assert self.shown(statsd)["pv_backup.pg_dump.size_bytes"] == 2

    @pytest.mark.case("TC-ERR-06")
    def test_a_journal_that_is_away_is_logged_and_fails_nothing(
        self, world: JournalWorld, statsd: StatsdListener, stack, caplog
    ):
        world.published()
        stack.postgres.stop()

        assert self.shown(statsd) == {}
        assert "could not be reported" in caplog.text


class Collector:
    """An OTLP endpoint over HTTP, as an OpenTelemetry collector has it."""

    def __init__(self) -> None:
        self.received = received = ExportMetricsServiceRequest()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.MergeFromString(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def names(self) -> set[str]:
        resources = self.received.resource_metrics
        return {metric.name for resource in resources for scope in resource.scope_metrics for metric in scope.metrics}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_opentelemetry_gets_the_same_names(world: JournalWorld, monkeypatch):
    world.published()
    collector = Collector()
    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")

    with metrics_on():
        report_backups(ConnectionIds())
        # Airflow registers it for the end of a task's process; this one lives on.
        flush_otel_metrics()
        atexit.unregister(flush_otel_metrics)
        opentelemetry.metrics.get_meter_provider().shutdown()
    collector.close()

    assert {name for name in collector.names() if PREFIX in name} == {
        "airflow.pv_backup.drill.open_incidents",
        *(f"airflow.pv_backup.pg_dump.{figure}" for figure in ("last_success", "duration_s", "size_bytes")),
    }
