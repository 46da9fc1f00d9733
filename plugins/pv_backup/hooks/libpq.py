"""Airflow Postgres connections for tools and drivers that speak libpq rather than Airflow's DBAPI hook."""

from __future__ import annotations

from airflow.providers.postgres.hooks.postgres import PostgresHook

from pv_backup.services.errors import ConfigurationError


class LibpqHook(PostgresHook):
    """Reads a connection as libpq keywords, its extras (`sslmode`, `sslrootcert` …) included."""

    def params(self) -> dict[str, str]:
        """The connection's keywords (https://www.postgresql.org/docs/15/libpq-connect.html#LIBPQ-PARAMKEYWORDS).

        :raises ConfigurationError: if the connection names no database.
        """
        connection = self.get_connection(self.get_conn_id())
        keywords = {
            "host": connection.host,
            "port": connection.port,
            "user": connection.login,
            "password": connection.password,
            "dbname": connection.schema,
        }
        extra = {key: value for key, value in connection.extra_dejson.items() if key not in self.ignored_extra_options}
        params = {key: str(value) for key, value in {**keywords, **extra}.items() if value not in (None, "")}
        if "dbname" not in params:
            raise ConfigurationError(
                f"the connection {self.get_conn_id()} names no database",
                remedy="put the database's name into the connection's schema field",
            )
        return params
