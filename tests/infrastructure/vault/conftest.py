"""Fixtures of the tests of docs/vault.md and of the policies in include/vault."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from airflow.sdk.configuration import clear_secrets_backends_cache

from tests.infrastructure.vault.vault_page import SERVICE, AppRoleHalves, VaultOfThePage, followed
from tests.support.servers import TestStack

Worker = Callable[..., None]


@pytest.fixture(scope="session")
def vault(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> VaultOfThePage:
    """Set up once, by the page; it goes with the stack."""
    return followed(stack, tmp_path_factory.mktemp("vault"))


@pytest.fixture
def worker(vault: VaultOfThePage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """Makes this process a worker whose connections are in the environment or in Vault, as the page says."""

    def become(role: str = SERVICE, *, halves: AppRoleHalves | None = None, **changed: str) -> None:
        for name, value in vault.of_a_worker(halves or vault.draw(role), **changed).items():
            monkeypatch.setenv(name, value)
        clear_secrets_backends_cache()

    yield become
    clear_secrets_backends_cache()
