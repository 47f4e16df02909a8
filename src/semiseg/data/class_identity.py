"""Whether classes of two datasets are the same where their names were made up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from semiseg.splits.lists import shown

DECIDE = ("name", "classes", "values", "void")
"""Settings of a dataset that decide what its classes are, together with its folder."""


def unproven(one: Mapping[str, Any], other: Mapping[str, Any], classes: Iterable[str]) -> list[str]:
    """Return the made-up names among the classes that two datasets share; empty where they are one dataset.

    Args:
        one: settings of a dataset, with an absolute root.
        other: those of another dataset, or of the same.
        classes: names that both have.
    """
    # Imports decoders, which a look at settings need not.
    from semiseg.data.folder_info import is_placeholder

    made_up = [name for name in classes if is_placeholder(name)]
    return made_up if made_up and _decided(one) != _decided(other) else []


def placeholder_remark(names: Iterable[str]) -> str:
    """Say in a clause what made-up names do not tell."""
    return f"{shown(names)} are made-up names, and equal ones do not prove that the classes are the same"


def _decided(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    root = settings.get("root")
    place = None if root is None else os.path.realpath(Path(str(root)).expanduser())
    return place, *(settings.get(key) or None for key in DECIDE)
