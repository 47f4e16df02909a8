"""A value that a preset names for each of its published rows: ``${by_split:${split},{1/16: 32, 1/8: 34}}``."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from semiseg.errors import UserError


def by_split(split: Any, rows: Mapping[Any, Any]) -> Any:
    """Return the value of the row of this split.

    Args:
        split: as ``split`` is given.
        rows: value of each published split.

    Raises:
        UserError: the split is none of them.
    """
    named = {str(key): value for key, value in rows.items()}
    if str(split) not in named:
        raise UserError(
            f"split={split}: this preset holds what was published for {', '.join(named)}. Choose one of them, or "
            "give the value yourself."
        )
    return named[str(split)]


def register() -> None:
    """Make ``by_split`` known to OmegaConf; may be repeated."""
    OmegaConf.register_new_resolver("by_split", by_split, replace=True)
