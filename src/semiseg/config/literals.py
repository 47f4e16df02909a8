"""Texts in configs that are taken as they are: ``${`` in the name of a folder begins no interpolation."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


def literal(text: str) -> str:
    """Write a text so that OmegaConf resolves it to itself."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def literals(node: Any) -> Any:
    """Return plain values with all texts as ``literal``."""
    if isinstance(node, Mapping):
        return {key: literals(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [literals(value) for value in node]
    return literal(node) if isinstance(node, str) else node


def resolved(value: Any) -> Any:
    """Return a value as OmegaConf resolves it; one that needs other keys is kept as it is."""
    if not isinstance(value, str):
        return value
    try:
        return OmegaConf.create({"value": value})["value"]
    except OmegaConfBaseException:
        return value


def quoted(text: str) -> str:
    """Write a text so that Hydra reads an override with it as this one text."""
    # Of the backslashes, Hydra takes only those before a quote for more than themselves.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
