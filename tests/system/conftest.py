"""The system tests' fixture: an Airflow world for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import TestStack
from tests.system.airflow_world import AirflowWorld, opened


@pytest.fixture
def world(stack: TestStack, tmp_path: Path) -> Iterator[AirflowWorld]:
    """Fresh source, journal and bucket, and an Airflow pointed at them."""
    with opened(stack, tmp_path) as world:
        yield world
