"""deploy/helm/values.yaml: behind an ingress that ends TLS the API server knows that browsers speak HTTPS."""

from __future__ import annotations

import asyncio
import re
from ipaddress import ip_network
from typing import Any, Final

import pytest
import uvicorn
import yaml
from airflow.cli.cli_parser import get_parser

from tests.infrastructure.helm.worker_pods import HELM

pytestmark = pytest.mark.case("TC-INF-04")

API_SERVER: Final[dict[str, Any]] = yaml.safe_load((HELM / "values.yaml").read_text())["apiServer"]
TRUSTED: Final = "FORWARDED_ALLOW_IPS"
FIRST_ADDRESS, ANOTHER_ADDRESS = 1, -2


def trusted() -> str:
    (found,) = [variable["value"] for variable in API_SERVER["env"] if variable["name"] == TRUSTED]
    return found


def scheme_for(caller: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the application is told of a request that an ingress hands on, by the server as the chart starts it."""
    told: list[str] = []

    async def application(scope: dict[str, Any], receive: object, send: object) -> None:
        told.append(scope["scheme"])

    command = re.search(r"exec airflow (.*)", API_SERVER["args"][-1])
    assert command
    given = get_parser().parse_args(command[1].split())
    monkeypatch.setenv(TRUSTED, trusted())
    server = uvicorn.Config(application, proxy_headers=given.proxy_headers, log_config=None)  # type: ignore[arg-type]
    server.load()
    headers = [(b"x-forwarded-proto", b"https")]
    scope = {"type": "http", "scheme": "http", "client": (caller, 40000), "headers": headers}
    asyncio.run(server.loaded_app(scope, None, None))  # type: ignore[arg-type]
    (scheme,) = told
    return scheme


def test_what_the_ingress_says_of_the_scheme_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ip_network(trusted())

    for number in (FIRST_ADDRESS, ANOTHER_ADDRESS):
        assert scheme_for(str(network[number]), monkeypatch) == "https"


@pytest.mark.parametrize("caller", ["198.51.100.7", "127.0.0.1"])
def test_what_anybody_else_says_is_not(caller: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scheme_for(caller, monkeypatch) == "http"
