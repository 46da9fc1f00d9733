"""Fixtures of the tests of docs/vault.md and of the policies in include/vault."""

from __future__ import annotations

import pytest

from tests.infrastructure.vault.vault_page import VaultOfThePage, followed
from tests.support.servers import TestStack


@pytest.fixture(scope="session")
def vault(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> VaultOfThePage:
    """Set up once, by the page; it goes with the stack."""
    return followed(stack, tmp_path_factory.mktemp("vault"))
