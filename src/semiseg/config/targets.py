"""Compare ``_target_`` nodes with the signatures of the classes that they name, before anything is built."""

import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from semiseg.config.faults import Fault
from semiseg.declare import Setting, accepts, as_node, choices, declared, fits, open_ended, record_of
from semiseg.errors import NOT_GIVEN, listed, nearest, shown
from semiseg.settings import NETWORK_PARTS, OTHER_NETWORKS

PACKAGES = ("semiseg", "torch", "torchvision", "albumentations", "timm")
SPECIAL = frozenset({"_target_", "_partial_", "_convert_", "_recursive_"})

OTHER_PARTS = tuple(f"method.{role}.{part}" for role in OTHER_NETWORKS for part in NETWORK_PARTS)
"""Keys of the parts of other networks than that of the run, which are options of config groups too."""


class BadTarget(Exception):  # noqa: N818 - turned into a fault where the key is known
    """A target that cannot be used.

    Args:
        reason: text that says why.
        near: nearest target that can be used; ``None`` where none is near.
    """

    def __init__(self, reason: str, near: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.near = near


def locate(target: str) -> Callable[..., Any]:
    """Import the class or function that a target names.

    Raises:
        BadTarget: it is outside of ``PACKAGES`` and the working directory, cannot be imported, or is nothing
            that can be called.
    """
    _admit(target)
    if target.startswith("albumentations"):
        importlib.import_module("semiseg.data.augment")  # sets albumentations up before its first import
    module, names = _deepest_module(target)
    found: Any = module
    for position, name in enumerate(names):
        if not hasattr(found, name):
            # A protocol would be no help: nothing can be built of it.
            known = [
                each
                for each in dir(found)
                if not each.startswith("_") and not getattr(getattr(found, each), "_is_protocol", False)
            ]
            near = nearest(name, known)
            path = ".".join(target.split(".")[: len(target.split(".")) - len(names) + position])
            raise BadTarget(f"{path} has no {name}.", f"{path}.{near}" if near else None)
        found = getattr(found, name)
    if not callable(found):
        raise BadTarget("it is neither a class nor a function.")
    return typing.cast(Callable[..., Any], found)


def check_node(node: Any, key: str, supplied: Sequence[str] = ()) -> list[Fault]:
    """Find every fault of a node and of all nodes below it.

    Args:
        node: plain values, interpolations resolved.
        key: dotted key of the node.
        supplied: names of arguments that code gives, not the config.
    """
    faults: list[Fault] = []
    if isinstance(node, list):
        for index, item in enumerate(node):
            faults += check_node(item, f"{key}[{index}]")
    elif isinstance(node, dict):
        for name, item in node.items():
            faults += check_node(item, f"{key}.{name}")
        if "_target_" in node:
            faults += _check_call(node, key, supplied)
    return faults


def _check_call(node: dict[str, Any], key: str, supplied: Sequence[str]) -> list[Fault]:
    target = node["_target_"]
    try:
        found = locate(str(target))
        known = declared(found)
    except BadTarget as error:
        return [Fault(f"{key}._target_", error.reason, target, error.near)]
    except (TypeError, ValueError):  # builtins without a signature: the call itself will show
        return []
    given = {name: value for name, value in node.items() if name not in SPECIAL}
    if not supplied_name(key, found):
        given.pop("name", None)
    allowed = [name for name in known if name not in supplied]
    faults = []
    for name, value in given.items():
        if name not in allowed:
            if not open_ended(found):
                takes = f"{_short(target)} takes no {name}.\nIt takes: {listed(allowed)}."
                # A node would fill the screen.
                given_value = NOT_GIVEN if isinstance(value, dict) else value
                faults.append(Fault(f"{key}.{name}", takes, given_value, nearest(name, allowed)))
        elif not fits(value, known[name].hint):
            near = nearest(shown(value), choices(known[name].hint))
            faults.append(Fault(f"{key}.{name}", f"expected {known[name].expected}.", value, near))
        elif isinstance(value, dict) and "_target_" not in value and record_of(known[name].hint):
            faults += _check_call(as_node(value, known[name].hint), f"{key}.{name}", ())
    for name in allowed:
        if known[name].required and not node.get("_partial_") and name not in given:
            faults.append(Fault(f"{key}.{name}", f"missing; {_short(target)} needs it."))
    return faults


def supplied_name(key: str, found: Callable[..., Any]) -> bool:
    """Whether the ``name`` of a node is an argument; the name of an option need not be one."""
    is_option = key in OTHER_PARTS or not ("." in key or "[" in key)
    return not is_option or accepts(found, "name")


def _admit(target: str) -> None:
    """Raise unless the top package may be imported; importing runs code."""
    top = target.split(".")[0]
    if top in PACKAGES:
        return
    here = Path.cwd()
    if not top.isidentifier() or not ((here / f"{top}.py").is_file() or (here / top).is_dir()):
        allowed = f"{listed(PACKAGES)}, or a module in the working directory"
        raise BadTarget(f"its top package has to be one of {allowed}.", nearest(top, PACKAGES))
    # At the end: a file of the user must not hide an installed module of the same name.
    if str(here) not in sys.path:
        sys.path.append(str(here))
    spec = find_spec(top)
    origin = [spec.origin, *(spec.submodule_search_locations or [])] if spec else []
    if not any(each and Path(each).resolve().is_relative_to(here) for each in origin):
        raise BadTarget(f"another module named {top} comes first; rename yours.")


def _deepest_module(target: str) -> tuple[types.ModuleType, list[str]]:
    """Import the longest prefix that is a module; return it and the rest."""
    parts = target.split(".")
    module = _import(parts[0])
    for end in range(2, len(parts) + 1):
        if hasattr(module, parts[end - 1]):
            inner = getattr(module, parts[end - 1])
            if not inspect.ismodule(inner):
                return module, parts[end - 1 :]
        name = ".".join(parts[:end])
        if not hasattr(module, "__path__") or find_spec(name) is None:
            return module, parts[end - 1 :]
        module = _import(name)
    return module, []


def _import(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BadTarget(f"cannot be imported: no module named {error.name} is installed.") from error
    except Exception as error:  # a user's own module may fail in any way
        raise BadTarget(f"importing {name} fails: {type(error).__name__}: {error}") from error


def _short(target: Any) -> str:
    return str(target).rsplit(".", 1)[-1]


def complete(node: Any, key: str = "") -> None:
    """Fill in the defaults of all arguments that a node and the nodes below it leave out.

    Arguments of other packages' classes stay as they are, since their defaults may change with the version. A class
    that cannot be imported is left to the check.

    Args:
        node: config of OmegaConf, or plain values; changed in place.
        key: dotted key of the node.
    """
    if isinstance(node, ListConfig | list):
        for index in range(len(node)):
            complete(_raw(node, index), f"{key}[{index}]")
    if not isinstance(node, DictConfig | dict):
        return
    if "_target_" in node:
        for name, kind in _records(node).items():
            if isinstance(given := _raw(node, name), DictConfig | dict) and "_target_" not in given:
                given["_target_"] = f"{kind.__module__}.{kind.__qualname__}"
    for name in list(node):
        complete(_raw(node, name), f"{key}.{name}")
    if "_target_" in node:
        for name, default in _left_out(node).items():
            node[name] = default


def _left_out(node: Mapping[Any, Any]) -> dict[str, Any]:
    defaults = {
        name: as_node(setting.default, setting.hint)
        for name, setting in _known(node).items()
        if name not in node and name != "name"
    }
    return {
        name: list(default) if isinstance(default, tuple) else default
        for name, default in defaults.items()
        if is_plain(default)
    }


def _records(node: Mapping[Any, Any]) -> dict[str, type[Any]]:
    """Return the settings of a node that are records, and so nodes themselves."""
    kinds = {name: record_of(setting.hint) for name, setting in _known(node).items() if name in node}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _known(node: Mapping[Any, Any]) -> Mapping[str, Setting]:
    """Return the settings that the class of a node declares; none where it is of another package or unknown."""
    target = str(node["_target_"])
    if target.split(".")[0] in PACKAGES[1:]:
        return {}
    try:
        return declared(locate(target))
    except (BadTarget, TypeError, ValueError):
        return {}


def _raw(node: Any, key: Any) -> Any:
    """Return the value below a node; ``None`` for one that is missing or an interpolation, which holds no node."""
    if not OmegaConf.is_config(node):
        return node[key]
    return None if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key) else node[key]


def is_plain(value: Any) -> bool:
    """Whether YAML can hold a value."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str)
