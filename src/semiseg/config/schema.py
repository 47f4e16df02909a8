"""Shape of the config for Hydra, made from the records of ``semiseg.settings``; this module does not import torch."""

import copy
import dataclasses
import functools
import types
import typing
from typing import Any, Literal, Union

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from semiseg.declare import declared
from semiseg.settings import RunSettings


@functools.cache
def structured(cls: type) -> type:
    """Return a plain dataclass with the fields of a record, in types that OmegaConf knows."""
    hints = typing.get_type_hints(cls)
    fields = [
        (name, _known(hints[name]), dataclasses.field(default_factory=_default(setting.default)))
        for name, setting in declared(cls).items()
    ]
    return dataclasses.make_dataclass(cls.__name__, fields)


def register(typed: bool) -> None:
    """Register ``schema`` with Hydra.

    Args:
        typed: whether it has types: with them, a wrong key or value stops the composition at the first fault;
            without, the same defaults accept everything, so that ``check`` can name all faults.
    """
    root = OmegaConf.structured(structured(RunSettings))
    node = root if typed else OmegaConf.create(OmegaConf.to_container(root))
    ConfigStore.instance().store(name="schema", node=node, provider="semiseg")


def _known(hint: Any) -> Any:
    """Return a type that OmegaConf knows: text for names of choices, ``Any`` for one of several types."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return structured(typing.cast(type, hint))
    if origin is Literal:
        return type(arguments[0])
    if origin in (Union, types.UnionType):
        inner = [each for each in arguments if each is not type(None)]
        return _known(inner[0]) | None if len(inner) == 1 and len(arguments) == 2 else Any
    if origin is list and arguments:
        return list[_known(arguments[0])]  # type: ignore[misc]
    return hint


def _default(value: Any) -> typing.Callable[[], Any]:
    if dataclasses.is_dataclass(value):
        return structured(typing.cast(Any, type(value)))
    return lambda: copy.copy(value)
