"""Compare ``_target_`` nodes with the signatures of what they name, before anything is built."""

import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Union

from semiseg.config.faults import Fault
from semiseg.errors import listed, nearest

PACKAGES = ("semiseg", "torch", "torchvision", "albumentations", "timm")
SPECIAL = frozenset({"_target_", "_partial_", "_convert_", "_recursive_"})
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


class BadTarget(Exception):  # noqa: N818 - turned into a fault where the key is known
    """A target that cannot be used; with the nearest name that can.

    Args:
        reason: what is wrong.
        near: the nearest target.
    """

    def __init__(self, reason: str, near: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.near = near


def locate(target: str) -> Callable[..., Any]:
    """Import what a target names.

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
            known = [each for each in dir(found) if not each.startswith("_")]
            near = nearest(name, known)
            path = ".".join(target.split(".")[: len(target.split(".")) - len(names) + position])
            raise BadTarget(f"{path} has no {name}.", f"{path}.{near}" if near else None)
        found = getattr(found, name)
    if not callable(found):
        raise BadTarget("it is neither a class nor a function.")
    return typing.cast(Callable[..., Any], found)


def parameters(found: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Parameters of a class or function by name."""
    return inspect.signature(found).parameters


def accepts(found: Callable[..., Any], name: str) -> bool:
    """Whether a class or function takes an argument of this name."""
    known = parameters(found)
    return name in known or any(each.kind is each.VAR_KEYWORD for each in known.values())


def check_node(node: Any, key: str, supplied: Sequence[str] = ()) -> list[Fault]:
    """Find every fault of a node and of all nodes below it.

    Args:
        node: plain values, interpolations resolved.
        key: dotted key of the node.
        supplied: arguments that code gives beside those of the config.
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
        known = parameters(found)
    except BadTarget as error:
        return [Fault(f"{key}._target_", error.reason, target, error.near)]
    except (TypeError, ValueError):  # builtins without a signature: the call itself will tell
        return []
    hints = _hints(found)
    given = {name: value for name, value in node.items() if name not in SPECIAL}
    if not supplied_name(key, found):
        given.pop("name", None)
    open_ended = any(each.kind is each.VAR_KEYWORD for each in known.values())
    allowed = [
        each.name
        for each in known.values()
        if each.kind is not each.VAR_KEYWORD and each.name not in supplied
    ]
    faults = []
    for name, value in given.items():
        if name not in allowed and not open_ended:
            takes = f"{_short(target)} takes no {name}.\nIt takes: {listed(allowed)}."
            faults.append(Fault(f"{key}.{name}", takes, value, nearest(name, allowed)))
        elif name in hints and not fits(value, hints[name]):
            faults.append(Fault(f"{key}.{name}", f"expected {described(hints[name])}.", value))
    partial = bool(node.get("_partial_"))
    for each in known.values():
        required = each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        if required and not partial and each.name not in given and each.name not in supplied:
            faults.append(Fault(f"{key}.{each.name}", f"missing; {_short(target)} needs it."))
    return faults


def supplied_name(key: str, found: Callable[..., Any]) -> bool:
    """Whether the ``name`` of a node is an argument; the name of an option need not be one."""
    return "." in key or "[" in key or accepts(found, "name")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of an annotated type; types that a config cannot express pass."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, dict) and "_target_" in value:
        return hint not in (int, float, bool, str)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint in (None, type(None)):
        return value is None
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        return isinstance(value, list) and _items_fit(value, origin, arguments)
    own_class = inspect.isclass(hint) and hint.__module__.startswith("semiseg.")
    return not (own_class and isinstance(value, (int, float, str, bool, list, type(None))))


def described(hint: Any) -> str:
    """An annotated type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in NAMES:
        return NAMES[hint]
    if hint is None:
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(described(each) for each in arguments)
    if origin is Literal:
        return "one of: " + ", ".join(map(str, arguments))
    if inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
        inner = [described(each) for each in arguments if each is not Ellipsis]
        return f"a list [{', '.join(dict.fromkeys(inner))}, ...]" if inner else "a list"
    if inspect.isclass(hint):
        return f"a node whose _target_ gives a {hint.__name__}"
    return str(hint)


def _items_fit(value: list[Any], origin: type, arguments: tuple[Any, ...]) -> bool:
    if issubclass(origin, tuple) and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    return not arguments or all(fits(item, arguments[0]) for item in value)


def _admit(target: str) -> None:
    """Raise unless the top package may be imported; importing runs code."""
    top = target.split(".")[0]
    if top in PACKAGES:
        return
    here = Path.cwd()
    if not top.isidentifier() or not ((here / f"{top}.py").is_file() or (here / top).is_dir()):
        allowed = f"{listed(PACKAGES)}, or a module in the working directory"
        raise BadTarget(f"its top package has to be one of {allowed}.", nearest(top, PACKAGES))
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


def _hints(found: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
    except Exception:  # annotations of other packages need not resolve
        return {}


def _short(target: Any) -> str:
    return str(target).rsplit(".", 1)[-1]
