"""A value that a preset names for each of its published rows: ``${by:split,{1/16: 32, 1/8: 34}}``."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from semiseg.errors import UserError


def by(key: str, rows: Mapping[Any, Any], *, _root_: DictConfig) -> Any:
    """Return the value of the row that the value of a key chooses.

    Args:
        key: dotted key, for example ``split`` or ``backbone.name``.
        rows: result for each published value of the key.
        _root_: whole config, which OmegaConf supplies.

    Raises:
        UserError: the key has none of these values.
    """
    value = OmegaConf.select(_root_, key)
    named = {str(row): result for row, result in rows.items()}
    if str(value) not in named:
        raise UserError(
            f"this preset holds what was published for {', '.join(named)}. Choose one of them, or give the value "
            "yourself.",
            key=key,
            value=value,
        )
    return named[str(value)]


def register() -> None:
    """Register ``by`` with OmegaConf; may be repeated."""
    OmegaConf.register_new_resolver("by", by, replace=True)
