"""Terraform's files as plain data: parsed by python-hcl2, which knows the language and no provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import hcl2

from dev.provider_schemas.excerpt import TERRAFORM

EXAMPLE = TERRAFORM / "examples" / "complete"
_LABELS = {"resource": 2, "data": 2, "variable": 1, "output": 1, "module": 1, "provider": 1}


@dataclass(frozen=True)
class Block:
    """One block at the top of a file.

    :ivar labels: such as `("aws_kms_key", "backup")`.
    :ivar body: as python-hcl2 gives it: an expression is a text in `${…}`, nested blocks are lists of dictionaries.
    """

    kind: str
    labels: tuple[str, ...]
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """As a person would look for it."""
        return " ".join((self.kind, *self.labels))


class Configuration:
    """All that one folder declares.

    :param files: name and text of each file.
    """

    def __init__(self, files: dict[str, str]) -> None:
        self.blocks = [block for text in files.values() for block in _blocks(_parsed(text))]

    @classmethod
    def of(cls, folder: Path, *, changed: tuple[str, str] = ("", "")) -> Configuration:
        """Read a folder; with one place of its text changed, where a test wants a mistake in it.

        :raises ValueError: if that place is not there, or not once.
        """
        files = {file.name: file.read_text() for file in sorted(folder.glob("*.tf"))}
        old, new = changed
        if old:
            (name,) = (name for name, text in files.items() if text.count(old) == 1)
            files[name] = files[name].replace(old, new)
        return cls(files)

    def of_kind(self, kind: str) -> dict[tuple[str, ...], Block]:
        """The blocks of a kind by their labels."""
        return {block.labels: block for block in self.blocks if block.kind == kind}

    @cached_property
    def local_names(self) -> set[str]:
        """Everything that a `locals` block names."""
        return {name for block in self.blocks if block.kind == "locals" for name in plain(block.body)}

    def names(self, kind: str) -> set[str]:
        """The names of variables, outputs or modules."""
        return {labels[0] for labels in self.of_kind(kind)}


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """A body without what the parser adds to it."""
    return {name: value for name, value in body.items() if not name.startswith("__")}


def nested(name: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    """Name and body of each nested block that a member of a body stands for; none if it is an argument.

    A `dynamic` block is what it makes.
    """
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return []
    if name == "dynamic":
        made = [next(iter(plain(one).items())) for one in value]
        return [(str(literal(label)), content) for label, one in made for content in one["content"]]
    return [(name, body) for body in value if "__is_block__" in body]


def texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in plain(value).items():
            yield from texts(name)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def literal(value: Any) -> Any:
    """A text without its quotation marks, anything else as it is."""
    if isinstance(value, str) and re.fullmatch(r'"[^"]*"', value):
        return value[1:-1]
    return value


def _blocks(parsed: dict[str, Any]) -> Iterator[Block]:
    for kind, bodies in plain(parsed).items():
        for body in bodies:
            labels = []
            for _ in range(_LABELS.get(kind, 0)):
                ((label, body),) = plain(body).items()
                labels.append(str(literal(label)))
            yield Block(kind, tuple(labels), body)


@cache
def _parsed(text: str) -> dict[str, Any]:
    """Parsing a file takes 0.1 s, and a test changes one of many."""
    parsed: dict[str, Any] = hcl2.loads(text)
    return parsed
