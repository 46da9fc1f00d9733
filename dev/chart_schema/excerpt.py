"""The excerpt: for each value that is set, the part of the chart's schema that judges it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
EXCERPT = HERE / "excerpt.json"
VALUES = HERE.parents[1] / "deploy" / "helm" / "values.yaml"
#: Stands where the chart names a class of the Kubernetes API; its value is the class as the Python client calls it.
KUBERNETES = "kubernetes"

# What judges a value; all else explains it.
_JUDGES = {KUBERNETES, "type", "pattern", "enum", "required", "minimum", "maximum"}
_KUBERNETES = re.compile(r"#/definitions/io\.k8s\.[\w.]+\.(?P<name>\w+)$")
# helm's command sets this one, from a file.
_BY_COMMAND = {"airflowLocalSettings": ""}

Node = dict[str, Any]


def generate(chart: Path) -> dict[str, Any]:
    """Look each key of our values up.

    :param chart: the unpacked chart.
    :raises LookupError: naming a key that the chart does not have, or a chart of another version.
    """
    text = VALUES.read_text()
    version = str(yaml.safe_load((chart / "Chart.yaml").read_text())["version"])
    if f"--version {version} " not in text:
        raise LookupError(f"{chart} is version {version} of the chart, and {VALUES.name} installs another one")
    schema = (chart / "values.schema.json").read_bytes()
    found = dict(Schema(json.loads(schema)).judges({**yaml.safe_load(text), **_BY_COMMAND}))
    return {"chart": {"version": version, "schema_sha3_256": hashlib.sha3_256(schema).hexdigest()}, "values": found}


def as_text(excerpt: dict[str, Any]) -> str:
    """As the file holds it, so that two can be compared by eye and by diff; a value a line."""
    values = [f"  {json.dumps(place)}: {json.dumps(node)}" for place, node in sorted(excerpt["values"].items())]
    head = f'{{\n "chart": {json.dumps(excerpt["chart"])},\n "values": {{\n'
    return head + ",\n".join(values) + "\n }\n}\n"


class Schema:
    """The chart's schema of its values.

    :param root: values.schema.json.
    """

    def __init__(self, root: Node) -> None:
        self._root = root

    def judges(self, values: dict[str, Any], node: Node | None = None, path: str = "") -> Iterator[tuple[str, Node]]:
        """What judges each value; what lies below a class of Kubernetes, or below free keys, belongs to that value.

        :raises LookupError: naming a key that the chart does not have.
        """
        known = self._root["properties"] if node is None else node["properties"]
        for key, value in values.items():
            place = f"{path}.{key}".lstrip(".")
            if key not in known:
                raise LookupError(f"{place} is no value of the chart")
            below = self._own(known[key])
            if isinstance(value, dict) and "properties" in below and KUBERNETES not in below:
                yield from self.judges(value, below, place)
            else:
                yield place, self._pruned(below)

    def _own(self, node: Node) -> Node:
        """Follow a reference within the chart; one to the Kubernetes API becomes the class's name."""
        if "$ref" not in node:
            return node
        if known := _KUBERNETES.match(node["$ref"]):
            return {KUBERNETES: f"V1{known['name']}"}
        return self._own(self._root["definitions"][node["$ref"].removeprefix("#/definitions/")])

    def _pruned(self, node: Node) -> Node:
        node = self._own(node)
        kept = {word: node[word] for word in node if word in _JUDGES}
        if "properties" in node:
            kept["properties"] = {key: self._pruned(below) for key, below in node["properties"].items()}
        for word in ("items", "additionalProperties"):
            if word in node:
                kept[word] = self._pruned(node[word]) if isinstance(node[word], dict) else node[word]
        return kept
