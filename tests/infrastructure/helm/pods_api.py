"""As much of the Kubernetes API, over HTTP, as Airflow needs to look after pods; a cluster is more than a test has."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.support.http_server import serving

_LOOK_S: Final = 0.2
_POD: Final = {"name": "pods", "kind": "Pod", "namespaced": True, "verbs": ["list"], "singularName": "pod"}
#: What a client asks first: which objects there are.
_DISCOVERY: Final = {
    "/version": {"major": "1", "minor": "34"},
    "/apis": {"kind": "APIGroupList", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [_POD]},
}


@dataclass
class PodsApi:
    """The pods of one namespace, by name.

    :ivar address: where it listens.
    :ivar pods: as JSON; a client's deletion takes one out.
    """

    address: str
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, pod: dict[str, Any], status: dict[str, Any]) -> str:
        """As a kubelet would report it; returns its name."""
        name: str = pod["metadata"]["name"]
        pod["metadata"] |= {"resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
        self.pods[name] = pod | {"status": status}
        return name

    def settings(self, home: Path) -> dict[str, str]:
        """Airflow's settings to find it, as variables; a kubeconfig is written into that directory."""
        cluster = {"name": "it", "cluster": {"server": self.address}}
        context = {"name": "it", "context": {"cluster": "it", "user": "it"}}
        kubeconfig = {
            "clusters": [cluster],
            "contexts": [context],
            "users": [{"name": "it", "user": {}}],
            "current-context": "it",
        }
        (home / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        found = {"in_cluster": "False", "config_file": str(home / "kubeconfig"), "namespace": "airflow"}
        return {f"AIRFLOW__KUBERNETES_EXECUTOR__{name.upper()}": value for name, value in found.items()}

    def selected(self, query: dict[str, str]) -> list[dict[str, Any]]:
        """The pods that a request's selectors mean."""
        return [pod for pod in list(self.pods.values()) if _matches(pod, query)]


def _matches(pod: dict[str, Any], query: dict[str, str]) -> bool:
    labels = pod["metadata"]["labels"]
    for term in filter(None, query.get("labelSelector", "").split(",")):
        key, sign, value = re.fullmatch(r"([^!=]+)(!?=)?(.*)", term).groups()  # type: ignore[union-attr]
        if key not in labels if sign is None else (labels.get(key) == value) != (sign == "="):
            return False
    found = re.fullmatch(r"status\.phase(!?=)(\w+)", query.get("fieldSelector", ""))
    return not found or (pod["status"]["phase"] == found[2]) == (found[1] == "=")


@contextmanager
def pods_api() -> Iterator[PodsApi]:
    """Answer until the end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            if url.path in _DISCOVERY:
                self._answer(_DISCOVERY[url.path])
            elif query.get("watch", "").lower() == "true":
                # A watch that ends soon: its client asks again.
                time.sleep(_LOOK_S)
                self._answer(*({"type": "ADDED", "object": pod} for pod in api.selected(query)))
            else:
                self._answer({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": api.selected(query)})

        def do_PATCH(self) -> None:
            change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pod = api.pods[Path(urlsplit(self.path).path).name]
            pod["metadata"]["labels"] |= change["metadata"]["labels"]
            self._answer(pod)

        def do_DELETE(self) -> None:
            gone = api.pods.pop(Path(urlsplit(self.path).path).name, None)
            self._answer(gone or {"kind": "Status", "code": 404}, status=200 if gone else 404)

        def _answer(self, *contents: dict[str, Any], status: int = 200) -> None:
            # Whoever watches is ended in the midst of it.
            with suppress(BrokenPipeError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b"".join(json.dumps(content).encode() + b"\n" for content in contents))

    with serving(Handler) as port:
        api = PodsApi(f"http://127.0.0.1:{port}")
        yield api
