"""Fixtures that several files of integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.vault_world import Connect, Engine, hook_maker, own_engine
from tests.support.servers import TestStack


@pytest.fixture
def engine(stack: TestStack) -> Iterator[Engine]:
    with own_engine(stack.vault.client()) as engine:
        yield engine


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    return hook_maker(monkeypatch)
