"""Refuse a source that cannot be dumped whole, by name, before a byte is dumped (SPEC F1.1).

In PostgreSQL 15 only a superuser can read all: `pg_read_all_data` with BYPASSRLS still fails on large objects, and
pg_dumpall needs pg_authid. A dump that silently lacks a table is worse than none.
"""

from __future__ import annotations

import psycopg

from pv_backup.services.errors import ConfigurationError
from pv_backup.services.postgres import Server

SUPPORTED_MAJOR = 15
_NAMED = 10

# has_table_privilege for sequences too: has_sequence_privilege raises on any other relation, and PostgreSQL may
# well ask it before it looks at relkind.
_UNREADABLE = """
SELECT kind, name FROM (
    SELECT 1 AS rank, 'table' AS kind, c.oid::regclass::text AS name
      FROM pg_class c
     WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
       AND c.relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema'))
       AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(c.relnamespace, 'USAGE'))
    UNION ALL
    SELECT 2, 'rows behind row-level security of table', c.oid::regclass::text
      FROM pg_class c WHERE c.relkind IN ('r', 'p') AND row_security_active(c.oid)
    UNION ALL
    SELECT 3, 'sequence', c.oid::regclass::text
      FROM pg_class c
     WHERE c.relkind = 'S' AND c.relpersistence <> 't'
       AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(c.relnamespace, 'USAGE'))
    UNION ALL
    SELECT 4, 'large object', l.oid::text
      FROM pg_largeobject_metadata l
     WHERE NOT pg_has_role(l.lomowner, 'USAGE')
       AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) a
                        WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
    UNION ALL
    SELECT 5, 'catalogue', 'pg_authid' WHERE NOT has_table_privilege('pg_authid', 'SELECT')
) missing ORDER BY rank, name
"""


def check_source(server: Server) -> None:
    """Check version, tools and privileges of the source.

    :raises ConfigurationError: naming the role and what it cannot read, or the version found.
    :raises ExportFailed: if the source cannot be reached.
    """
    for tool in ("pg_dump", "pg_dumpall"):
        check_tool(server, tool)
    with server.naming_errors(), server.connect() as connection:
        check_version(server, connection)
        _check_privileges(server, connection)


def check_tool(server: Server, tool: str) -> None:
    """Demand PostgreSQL 15's own tool.

    :raises ConfigurationError: naming the version found.
    """
    version = server.tool_version(tool)
    if f" {SUPPORTED_MAJOR}." not in version:
        raise ConfigurationError(
            f"{server.tool(tool)} is {version}: its archives may not be restorable with PostgreSQL {SUPPORTED_MAJOR}",
            remedy=f"apt-get install postgresql-client-{SUPPORTED_MAJOR}, or set PV_BACKUP_PG_BIN_DIR",
        )


def check_version(server: Server, connection: psycopg.Connection) -> None:
    """Demand a server of the version that the tools are made for.

    :raises ConfigurationError: naming the version found.
    """
    major = connection.info.server_version // 10_000
    if major != SUPPORTED_MAJOR:
        raise ConfigurationError(
            f"the source {server.name} is PostgreSQL {major}; this system backs up {SUPPORTED_MAJOR}",
            remedy="point the connection pv_backup_source at the right server",
        )


def _check_privileges(server: Server, connection: psycopg.Connection) -> None:
    row = connection.execute("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    role, is_superuser = row if row else (server.params.get("user", ""), False)
    if is_superuser:
        return
    missing = connection.execute(_UNREADABLE).fetchall()
    named = [f"{kind} {name}" for kind, name in missing[:_NAMED]]
    if len(missing) > _NAMED:
        named.append(f"and {len(missing) - _NAMED} more")
    raise ConfigurationError(
        f"role {role} of {server.name} is no superuser and cannot read: {', '.join(named) or 'what is added tomorrow'}",
        remedy=f'run ALTER ROLE "{role}" SUPERUSER there, or name such a role in the connection pv_backup_source',
    )
