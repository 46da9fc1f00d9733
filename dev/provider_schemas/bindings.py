"""Read a provider's schema out of its bindings: the jsii assembly that each package carries says all of it."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_REGISTRY = r"registry\.terraform\.io/providers/(?P<provider>[\w-]+/[\w-]+)/(?P<version>[\d.]+)/docs"
_REPRESENTS = re.compile(rf"{_REGISTRY}/(?P<kind>resources|data-sources)/\w+ (?P<name>\w+)\}}")
_OWN_NAME = re.compile(rf"{_REGISTRY}/[\w-]+/\w+#(?P<name>\w+) ")
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass(frozen=True)
class Bindings:
    """The types of one package, by their full names."""

    types: dict[str, Any]

    @classmethod
    def of_wheel(cls, wheel: Path) -> Bindings:
        """Open what lies in the wheel: an npm package, in it the assembly."""
        with zipfile.ZipFile(wheel) as outer:
            (inner,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            with outer.open(inner) as stream, tarfile.open(fileobj=stream) as package:
                assembly = package.extractfile("package/.jsii")
                assert assembly is not None
                types: dict[str, Any] = json.load(assembly)["types"]
                return cls(types)

    def schemas(self, wanted: set[tuple[str, str]]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        """Kind (`resource` or `data`), name, provider with version, and schema of each wanted (kind, name) there is."""
        for described in self.types.values():
            says = _REPRESENTS.search(described.get("docs", {}).get("summary", ""))
            if says is None or described["kind"] != "class":
                continue
            kind = "resource" if says["kind"] == "resources" else "data"
            if (kind, says["name"]) in wanted:
                yield kind, says["name"], f"{says['provider']} {says['version']}", self._whole(described)

    def _whole(self, described: dict[str, Any]) -> dict[str, Any]:
        """The block of a resource, and what others may read of it."""
        (config,) = (p["type"]["fqn"] for p in described["initializer"]["parameters"] if p["name"] == "config")
        block = self._block(self.types[config])
        settable = {name.replace("_", "") for name in (*block["arguments"], *block["blocks"])}
        inputs = {f"{name}input" for name in settable}
        exports = {
            _WORD_START.sub("_", member["name"]).lower()
            for member in described["properties"]
            if member["name"].lower() not in inputs and not member.get("static")
        }
        return block | {"exports": sorted(exports)}

    def _block(self, struct: dict[str, Any]) -> dict[str, Any]:
        arguments: dict[str, str] = {}
        required: list[str] = []
        blocks: dict[str, Any] = {}
        for member in struct.get("properties", []):
            docs = member["docs"]
            named = _OWN_NAME.search(docs.get("summary", "") + docs.get("remarks", ""))
            if named is None:
                raise ValueError(f"{struct['fqn']}.{member['name']}: its text does not say what Terraform calls it")
            name = named["name"]
            if not member.get("optional"):
                required.append(name)
            if docs.get("summary", "") == f"{name} block.":
                blocks[name] = self._block(self.types[_struct_in(member["type"])])
            else:
                arguments[name] = _kind(member["type"])
        return {
            "arguments": dict(sorted(arguments.items())),
            "blocks": dict(sorted(blocks.items())),
            "required": sorted(required),
        }


def _alternatives(kind: dict[str, Any]) -> list[dict[str, Any]]:
    """The types that a value may have; a token of the bindings' own language stands for any and is none of them."""
    of = kind["union"]["types"] if "union" in kind else [kind]
    return [one for one in of if one.get("fqn") != "cdktf.IResolvable"]


def _struct_in(kind: dict[str, Any]) -> str:
    (one,) = _alternatives(kind)
    name: str = one["collection"]["elementtype"]["fqn"] if "collection" in one else one["fqn"]
    return name


def _kind(kind: dict[str, Any]) -> str:
    """`string`, `number`, `boolean`, `array`, `map`, or `object`."""
    one = _alternatives(kind)[0]
    return str(one.get("primitive") or one.get("collection", {}).get("kind") or "object")
