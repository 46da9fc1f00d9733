"""Kubernetes objects held against the API's own model, as the Python client publishes it."""

from __future__ import annotations

import re
from typing import Any

from kubernetes.client import models

_PLAIN: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}


def problems(value: Any, type_name: str, path: str = "") -> list[str]:
    """What the API would not know or take, each with its place; empty when all is well.

    :param type_name: a class of ``kubernetes.client.models``, or what such a class says of a field: ``list[V1Volume]``.
    """
    if inner := re.fullmatch(r"list\[(.+)\]", type_name):
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [found for place, item in enumerate(value) for found in problems(item, inner[1], f"{path}[{place}]")]
    if inner := re.fullmatch(r"dict[\[(]str, (.+)[\])]", type_name):
        if not isinstance(value, dict):
            return [f"{path} is no mapping"]
        return [found for key, item in value.items() for found in problems(item, inner[1], f"{path}.{key}")]
    if type_name in _PLAIN:
        right = isinstance(value, _PLAIN[type_name]) and (type_name == "bool" or not isinstance(value, bool))
        return [] if right else [f"{path} is {value!r}, not {type_name}"]
    model = getattr(models, type_name, None)
    if model is None:  # object, datetime
        return []
    if not isinstance(value, dict):
        return [f"{path} is {value!r}, not {type_name}"]
    fields = {published: name for name, published in model.attribute_map.items()}
    found = [f"{path}.{key} is no field of {type_name}" for key in value if key not in fields]
    for key in value:
        if key in fields:
            found += problems(value[key], model.openapi_types[fields[key]], f"{path}.{key}")
    return found
