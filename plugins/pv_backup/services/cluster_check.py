"""Refuse a cluster of which no base backup can be made, naming the setting, before one is begun (SPEC F3.1)."""

from __future__ import annotations

import psycopg

from pv_backup.services.errors import ConfigurationError
from pv_backup.services.postgres import Server, one_row
from pv_backup.services.source_check import check_tool, check_version

# A temporary slot and one wal sender are all that a base backup takes. Whoever may not see the wal senders of others
# is told so before this counts.
_FREE = """
SELECT current_setting('max_wal_senders')::int
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'),
       current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)
"""


def check_cluster(server: Server) -> None:
    """Check version, tools, role, settings, free slots, and that replication connections are let in.

    :raises ConfigurationError: naming the setting or privilege, and what to set.
    :raises ExportFailed: if the source cannot be reached.
    """
    check_tool(server, "pg_basebackup")
    with server.naming_errors(), server.connect() as connection:
        check_version(server, connection)
        _check_primary(server, connection)
        _check_role(server, connection)
        _check_settings(server, connection)
        role, address = one_row(connection, "SELECT current_user, coalesce(host(inet_client_addr()), 'local')")
    _check_replication_connection(server, role, address)


def _check_primary(server: Server, connection: psycopg.Connection) -> None:
    # A standby can't close a WAL segment, nor is the backup whole if it is promoted meanwhile.
    (in_recovery,) = one_row(connection, "SELECT pg_is_in_recovery()")
    if in_recovery:
        raise ConfigurationError(
            f"the source {server.name} is a standby (in recovery)",
            remedy="point the connection pv_backup_source at the primary, where pg_receivewal runs too",
        )


def _check_role(server: Server, connection: psycopg.Connection) -> None:
    role, is_superuser, replicates, sees_sizes = connection.execute(
        "SELECT rolname, rolsuper, rolreplication, pg_has_role(oid, 'pg_read_all_stats', 'USAGE')"
        "  FROM pg_roles WHERE rolname = current_user"
    ).fetchone() or ("", False, False, False)
    if is_superuser:
        return
    if not replicates:
        raise ConfigurationError(
            f"role {role} of {server.name} may neither make base backups nor replication slots",
            remedy=f'run ALTER ROLE "{role}" REPLICATION there, or SUPERUSER as the daily dump needs it',
        )
    if not sees_sizes:
        raise ConfigurationError(
            f"role {role} of {server.name} may not see how large the cluster is",
            remedy=f'run GRANT pg_read_all_stats TO "{role}" there',
        )


def _check_settings(server: Server, connection: psycopg.Connection) -> None:
    (wal_level,) = one_row(connection, "SELECT current_setting('wal_level')")
    if wal_level == "minimal":
        raise ConfigurationError(
            f"{server.name} has wal_level = minimal, with which no base backup can be made",
            remedy="set wal_level = replica there, and max_wal_senders to 4 or more, and restart PostgreSQL",
        )
    for setting, free in zip(("max_wal_senders", "max_replication_slots"), one_row(connection, _FREE), strict=True):
        if free < 1:
            raise ConfigurationError(
                f"{server.name} has none free of its {setting}, and a base backup takes one",
                remedy=f"end what holds them (pg_stat_replication, pg_replication_slots), or raise {setting} there "
                "and restart PostgreSQL",
            )


def _check_replication_connection(server: Server, role: str, address: str) -> None:
    """Only a real one proves that pg_hba.conf lets it in: `all` among its databases does not mean replication."""
    params = {"connect_timeout": "10", "application_name": "pv_backup", **server.params, "replication": "true"}
    try:
        psycopg.connect(**params, autocommit=True).close()  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        said = str(error).strip().splitlines()[0]
        how = "local replication" if address == "local" else "host replication"
        of = "" if address == "local" else f" {address}/{128 if ':' in address else 32}"
        raise ConfigurationError(
            f"{server.name} lets {role} in, but not for replication: {said}",
            remedy=f"add `{how} {role}{of} scram-sha-256` to pg_hba.conf there and run SELECT pg_reload_conf()",
        ) from None
