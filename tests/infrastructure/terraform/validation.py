"""What `terraform validate` would find, without the providers: their schemas are in dev/provider_schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dev.provider_schemas.excerpt import EXCERPT
from tests.infrastructure.terraform.configuration import Block, Configuration, literal, nested, plain, texts

# What Terraform itself understands in every resource.
_META_ARGUMENTS = {"count", "for_each", "depends_on", "provider"}
_META_BLOCKS = {"lifecycle": {"create_before_destroy", "prevent_destroy", "ignore_changes", "replace_triggered_by"}}
_NAMED = re.compile(r"(?<![\w.])(var|local)\.(\w+)")
_MODULE = re.compile(r"(?<![\w.])module\.(\w+)\.(\w+)")
_RESOURCE = re.compile(r"(?<![\w.])(data\.)?((?:aws|vault)_\w+)\.(\w+)(\[[^\]]*\])?(?:\.(\w+))?")
_LITERALS: dict[str, type | tuple[type, ...]] = {"number": (int, float), "boolean": bool, "string": str}


def schemas() -> dict[str, dict[str, Any]]:
    """`resource` and `data`, each by type."""
    found: dict[str, dict[str, Any]] = json.loads(EXCERPT.read_text())
    return found


def findings(configuration: Configuration, *, modules: dict[str, Configuration] | None = None) -> list[str]:
    """Everything that is wrong, each with its place.

    :param modules: what the configuration calls, by the names of its `module` blocks.
    """
    known, called = schemas(), modules or {}
    found: list[str] = []
    for block in configuration.blocks:
        match block.kind:
            case "resource" | "data":
                schema = known[block.kind].get(block.labels[0])
                if schema is None:
                    found.append(f"{block.name}: no schema is kept; run python -m dev.provider_schemas")
                else:
                    found += (f"{block.name}: {what}" for what in _against(block.body, schema, top=True))
            case "module":
                found += (f"{block.name}: {what}" for what in _call(block, called[block.labels[0]]))
            case "import":
                found += _imported(block, called)
        found += (f"{block.name}: {what}" for what in _references(block, configuration, called, known))
    return found


def _against(body: dict[str, Any], schema: dict[str, Any], *, top: bool = False) -> Iterator[str]:
    """Hold a body against the schema of its block."""
    given = set()
    for name, value in plain(body).items():
        if top and (name in _META_ARGUMENTS or name in _META_BLOCKS):
            yield from _meta(name, value)
        elif blocks := nested(name, value):
            for label, inner in blocks:
                given.add(label)
                if label in schema["blocks"]:
                    yield from (f"{label}: {what}" for what in _against(inner, schema["blocks"][label]))
                else:
                    yield f"no block {label} exists"
        else:
            given.add(name)
            if name not in schema["arguments"]:
                yield f"no argument {name} exists"
            elif not _fits(value, schema["arguments"][name]):
                yield f"{name} is a {schema['arguments'][name]}, not {value}"
    for name in set(schema["required"]) - given:
        yield f"{name} is required"


def _meta(name: str, value: Any) -> Iterator[str]:
    for _, inner in nested(name, value):
        for argument in set(plain(inner)) - _META_BLOCKS[name]:
            yield f"no argument {argument} exists in {name}"


def _fits(value: Any, kind: str) -> bool:
    """Whether a literal is of that type; an expression is taken at its word."""
    if isinstance(value, str) and "${" in value:
        return True
    value = literal(value)
    if kind not in _LITERALS:
        return isinstance(value, dict | list)
    return isinstance(value, _LITERALS[kind]) and not (kind == "number" and isinstance(value, bool))


def _call(block: Block, module: Configuration) -> Iterator[str]:
    """What is given to a module, against its variables."""
    given = set(plain(block.body)) - {"source", "version", "providers"} - _META_ARGUMENTS
    variables = {labels[0]: variable.body for labels, variable in module.of_kind("variable").items()}
    yield from (f"the module has no variable {name}" for name in given - set(variables))
    yield from (
        f"{name} is required" for name, body in variables.items() if "default" not in body and name not in given
    )


def _imported(block: Block, modules: dict[str, Configuration]) -> Iterator[str]:
    address = literal(block.body["to"]).strip("${}")
    _, module, kind, name = address.split(".")
    name, _, index = name.partition("[")
    resource = modules[module].of_kind("resource").get((kind, name)) if module in modules else None
    if resource is None:
        yield f"import: {address} is not declared"
    elif bool(index) != bool({"for_each", "count"} & set(resource.body)):
        yield f"import: {address} {'is one; it has no key' if index else 'is several; it needs a key'}"


def _references(
    block: Block, configuration: Configuration, modules: dict[str, Configuration], known: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """Names that nothing declares, and exports that no schema has."""
    declared = {"var": configuration.names("variable"), "local": configuration.local_names}
    for text in texts({name: value for name, value in block.body.items() if (block.kind, name) != ("import", "to")}):
        for kind, name in _NAMED.findall(text):
            if name not in declared[kind]:
                yield f"{kind}.{name} is not declared"
        for module, output in _MODULE.findall(text):
            if module not in modules or output not in modules[module].names("output"):
                yield f"module.{module}.{output} is not declared"
        for data, kind, name, index, export in _RESOURCE.findall(text):
            which = "data" if data else "resource"
            resource = configuration.of_kind(which).get((kind, name))
            if resource is None:
                yield f"{data}{kind}.{name} is not declared"
            elif export and export not in known[which][kind]["exports"]:
                yield f"{kind} exports no {export}"
            elif export and not index and {"for_each", "count"} & set(resource.body):
                yield f"{kind}.{name} is several; it needs a key"
