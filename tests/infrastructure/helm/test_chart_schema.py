"""dev/chart_schema: what it takes out of a chart, and which charts it refuses; on a small chart of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dev.chart_schema import excerpt

pytestmark = pytest.mark.case("TC-INF-04")

_POD: dict[str, Any] = {"type": "object", "description": "explains", "$ref": "#/definitions/io.k8s.api.core.v1.Pod"}
_SCHEMA: dict[str, Any] = {
    "properties": {
        "uid": {"type": "integer", "description": "explains", "default": 1},
        "worker": {"type": "object", "properties": {"pods": {"type": "array", "items": _POD}}},
        "groomer": {"$ref": "#/definitions/groomer"},
    },
    "definitions": {
        "groomer": {"type": "object", "properties": {"enabled": {"type": "boolean"}}},
        "io.k8s.api.core.v1.Pod": {"type": "object", "properties": {}},
    },
}


def test_only_what_judges_is_kept_and_references_are_followed() -> None:
    values = {"uid": 5, "worker": {"pods": []}, "groomer": {"enabled": False}}
    assert dict(excerpt.Schema(_SCHEMA).judges(values)) == {
        "uid": {"type": "integer"},
        "worker.pods": {"type": "array", "items": {excerpt.KUBERNETES: "V1Pod"}},
        "groomer.enabled": {"type": "boolean"},
    }


@pytest.mark.parametrize("values", [{"gid": 5}, {"worker": {"pod": []}}, {"groomer": {"enable": False}}])
def test_a_key_that_the_chart_does_not_have_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(LookupError, match=r"(gid|worker\.pod|groomer\.enable) is no value of the chart"):
        list(excerpt.Schema(_SCHEMA).judges(values))


def test_another_version_of_the_chart_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text("version: 1.9.0\n")
    (tmp_path / "values.schema.json").write_text(json.dumps(_SCHEMA))
    with pytest.raises(LookupError, match=r"version 1\.9\.0 of the chart"):
        excerpt.generate(tmp_path)


def test_the_excerpt_has_the_programs_form() -> None:
    text = excerpt.EXCERPT.read_text()
    assert excerpt.as_text(json.loads(text)) == text
