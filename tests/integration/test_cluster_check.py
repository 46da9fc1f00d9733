"""A cluster of which no base backup can be made is refused by the setting that forbids it (SPEC F3.1)."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dev.ports import free_ports
from dev.servers.postgres import Postgres
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.cluster_check import check_cluster
from pv_backup.services.errors import ConfigurationError, ExportFailed
from pv_backup.services.postgres import Server

pytestmark = pytest.mark.case("TC-NOM-03", "TC-ERR-01")


@pytest.fixture(scope="module")
def cluster(cluster_template):
    cluster = cluster_template.copied()
    yield cluster
    cluster.discard()


@pytest.fixture
def replicator(cluster):
    """A role that may replicate and see sizes, and nothing else; it goes with the test."""
    cluster.sql("CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'replicator'; GRANT pg_read_all_stats TO replicator")
    yield Server({**cluster.server.params, "user": "replicator", "password": "replicator"})
    cluster.sql("DROP ROLE replicator")


def refusal(server):
    with pytest.raises(ConfigurationError) as caught:
        check_cluster(server)
    return caught.value


def test_the_role_of_the_dump_passes(cluster):
    check_cluster(Server(conninfo_to_dict(cluster.dump_dsn)))


def test_a_role_that_may_only_replicate_and_see_sizes_passes_and_makes_base_backups(replicator):
    check_cluster(replicator)
    with BasebackupSource(server=replicator) as source:
        assert sum(map(len, source.chunks())) > 0
        assert source.facts()["wal_files"]


@pytest.mark.parametrize(
    ("taken_away", "what", "remedy"),
    [
        (
            "ALTER ROLE replicator NOREPLICATION",
            "may neither make base backups nor replication slots",
            'ALTER ROLE "replicator" REPLICATION',
        ),
        (
            "REVOKE pg_read_all_stats FROM replicator",
            "may not see how large the cluster is",
            'GRANT pg_read_all_stats TO "replicator"',
        ),
    ],
)
def test_what_a_role_lacks_is_named(cluster, replicator, taken_away, what, remedy):
    cluster.sql(taken_away)
    refused = refusal(replicator)
    assert f"role replicator of {replicator.name} {what}" in refused.what
    assert remedy in refused.remedy


def test_a_pg_hba_without_replication_is_named_with_the_line_to_add(cluster):
    hba = cluster.postgres.data_directory / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    cluster.sql("SELECT pg_reload_conf()")
    try:
        refused = refusal(cluster.server)
    finally:
        hba.write_text(before)
        cluster.sql("SELECT pg_reload_conf()")
    assert "but not for replication" in refused.what
    assert "pg_hba.conf" in refused.what
    assert "add `host replication postgres 127.0.0.1/32 scram-sha-256`" in refused.remedy


def test_too_few_slots_are_named(cluster):
    names = [f"taken_{number}" for number in range(10)]
    taken = []
    with ExitStack() as exits:
        for name in names:
            try:
                cluster.sql("SELECT pg_create_physical_replication_slot(%s)", name)
            except psycopg.errors.ConfigurationLimitExceeded:
                break
            taken.append(name)
            exits.callback(cluster.sql, "SELECT pg_drop_replication_slot(%s)", name)
        refused = refusal(cluster.server)
    assert taken
    assert "has none free of its max_replication_slots" in refused.what
    check_cluster(cluster.server)


def test_too_few_wal_senders_are_named(cluster):
    with ExitStack() as exits:
        for _ in range(10):
            try:
                sender = psycopg.connect(make_conninfo(cluster.dsn, replication="true"), autocommit=True)
            except psycopg.OperationalError:
                break
            exits.callback(sender.close)
        refused = refusal(cluster.server)
    assert "has none free of its max_wal_senders" in refused.what
    assert "raise max_wal_senders" in refused.remedy


def test_wal_level_minimal_is_named(open_path):
    server = Postgres(
        home=open_path / "minimal",
        port=free_ports(["postgres"])["postgres"],
        password="minimal",
        durable=False,
        settings={"wal_level": "minimal", "max_wal_senders": "0"},
    )
    server.start()
    try:
        refused = refusal(Server(conninfo_to_dict(server.dsn("postgres"))))
    finally:
        server.remove()
    assert "wal_level = minimal" in refused.what
    assert "wal_level = replica" in refused.remedy


def test_a_standby_is_refused(source_cluster):
    source_cluster.postgres.stop()
    (source_cluster.postgres.data_directory / "standby.signal").touch()
    source_cluster.postgres.start()
    refused = refusal(source_cluster.server)
    assert "is a standby" in refused.what
    assert "primary" in refused.remedy


def test_a_tool_that_is_not_installed_is_named(cluster, tmp_path):
    refused = refusal(Server(cluster.server.params, bin_dir=tmp_path))
    assert f"pg_basebackup is not on this worker (looked in {tmp_path}" in refused.what


def test_a_cluster_that_is_down_is_tried_again(cluster):
    away = Server({**cluster.server.params, "port": "1"})
    with pytest.raises(ExportFailed, match="does not let us in"):
        check_cluster(away)
