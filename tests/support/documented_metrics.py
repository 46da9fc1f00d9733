"""What docs/ promise of metrics: the figures, their names in Prometheus, and the names that the rules ask for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parents[2] / "docs"
PREFIX = "pv_backup"
_ROW = re.compile(r"^\| `([a-z_]+)` \| ([a-z_, ]+) \|", re.MULTILINE)
_SELECTED = re.compile(r'(\w+)\{flow="(\w+)"\}')
_NAMED = re.compile(rf"\b{PREFIX}_\w+")


def documented() -> set[str]:
    """Every figure of the table in docs/metrics.md, as ``pv_backup.<flow>.<figure>``."""
    rows = _ROW.findall((DOCS / "metrics.md").read_text())
    return {f"{PREFIX}.{flow}.{figure}" for figure, flows in rows for flow in flows.split(", ")}


def in_prometheus(name: str) -> tuple[str, str]:
    """(name, flow) that docs/statsd-mapping.yaml makes of what StatsD is sent: a glob, `*` for one part of it."""
    (mapping,) = yaml.safe_load((DOCS / "statsd-mapping.yaml").read_text())["mappings"]
    glob = re.escape(mapping["match"]).replace(r"\*", "([^.]+)")
    found = re.fullmatch(glob, f"airflow.{name}")
    assert found, f"{name} is not matched by {mapping['match']}"
    parts = {f"${number}": part for number, part in enumerate(found.groups(), start=1)}
    return _filled(mapping["name"], parts), _filled(mapping["labels"]["flow"], parts)


def rules() -> list[dict[str, Any]]:
    """The rules of docs/prometheus-rules.yaml."""
    (group,) = yaml.safe_load((DOCS / "prometheus-rules.yaml").read_text())["groups"]
    return list(group["rules"])


def asked_for(expression: str) -> set[tuple[str, str]]:
    """(name, flow) of each series in an expression, none of which may go without its flow."""
    selected = _SELECTED.findall(expression)
    assert sorted(_NAMED.findall(expression)) == sorted(name for name, _ in selected), expression
    return set(selected)


def _filled(template: str, parts: dict[str, str]) -> str:
    for placeholder, part in parts.items():
        template = template.replace(placeholder, part)
    return template
