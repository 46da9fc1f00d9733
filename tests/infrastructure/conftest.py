"""Fixtures that the tests of the deploy page share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.ports import free_ports
from dev.servers.postgres import Postgres
from tests.infrastructure.deploy_page import PASSWORD
from tests.support.clusters import open_directory


@pytest.fixture(scope="module")
def server(_guarded: None) -> Iterator[Postgres]:
    """A server on which nobody has done anything yet."""
    home = open_directory()
    postgres = Postgres(home=home, port=free_ports(["new"])["new"], password=PASSWORD, durable=False)
    postgres.start()
    yield postgres
    postgres.remove()
