"""Content of weights files: tensors and plain values, by what a file holds and not by its ending; no code is run."""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semiseg.errors import UserError
from semiseg.models.file_kinds import AGAIN, is_safetensors, not_weights

DEPTH = 4
SHOWN_OBJECTS = 3
NUMBERS = "?bBhHiIlLqQefdFD"
"""Codes of the numpy types whose numbers and arrays are read: truth values, integers, floats."""


def content_of(path: Path) -> Any:
    """Return what ``torch.save`` or safetensors wrote; numbers and arrays of numpy come as such.

    Args:
        path: existing file.

    Raises:
        UserError: it is no such file, is damaged, or would have to run code to be read.
    """
    try:
        if (fault := not_weights(path)) is not None:
            raise UserError(f"{path} {fault}")
        by_content = is_safetensors(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return _read_safetensors(path) if by_content else _read_torch(path)


def _read_torch(path: Path) -> Any:
    try:
        # A file, not its name: for some endings torch takes another reader.
        with torch.serialization.safe_globals(_numbers_of_numpy()), path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for damaged or refused files
        if named := _refused(path, error):
            raise UserError(
                f"{path} cannot be read as a weights file: it holds {named}. Files that would have to run code to be "
                "read are refused. Save the network's state_dict() alone, in a program that knows these objects: "
                "torch.save(network.state_dict(), 'weights.pth')"
            ) from error
        # Without torch's advice to switch the protection off, which is wrong for a damaged file.
        kind = "a pickle that torch.save has not written, or is damaged" if _is_pickle(path) else "damaged"
        raise UserError(
            f"{path} cannot be read as a weights file ({type(error).__name__}): it is {kind}. {AGAIN}"
        ) from error


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(
            f'Reading {path} needs the package safetensors: pip install "semiseg[timm]".'
        ) from error
    try:
        return load_file(path)
    except Exception as error:  # its error type is not part of its public interface
        raise UserError(
            f"{path} cannot be read as a safetensors file: {error}. It is damaged. {AGAIN}"
        ) from error


def _numbers_of_numpy() -> list[Any]:
    """Names that a pickle has for numbers and arrays of numpy, and what is called for them."""
    kinds = {type(np.dtype(code)) for code in NUMBERS}
    return [
        *((name, f"numpy.{module}.multiarray.{old}") for module in ("core", "_core") for old, name in _MADE),
        (np.dtype, "numpy.dtype"),
        (np.ndarray, "numpy.ndarray"),
        *kinds,
    ]


def _number(kind: "np.dtype[Any]", content: bytes) -> Any:
    """Return a number of numpy from its bytes; anything else that a pickle may ask numpy for is refused."""
    if kind.char not in NUMBERS:
        raise pickle.UnpicklingError(f"Unsupported number of type {kind}")
    return np.frombuffer(content, kind, count=1)[0]


def _array(kind: type, shape: tuple[int, ...], code: bytes) -> Any:
    """Return an empty array, which the pickle then fills."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"Unsupported array of type {kind}")
    return np.ndarray.__new__(np.ndarray, (0,), np.int8)


_MADE = (("scalar", _number), ("_reconstruct", _array))


def _refused(path: Path, error: Exception) -> str | None:
    """Name the objects that would have to run code; ``None`` where the file has another fault."""
    text = str(error)
    if not isinstance(error, pickle.UnpicklingError) or "GLOBAL" not in text:
        return None
    if found := list(_objects(_skeleton(path))):
        more = len(found) - SHOWN_OBJECTS
        named = [f"{name} at {place}" if place else f"a whole pickled {name}" for place, name in found]
        return ", ".join(named[:SHOWN_OBJECTS]) + (f" and {more} more" if more > 0 else "")
    named_there = re.search(r"GLOBAL (\S+)", text)
    return named_there[1] if named_there else None


class _Placeholder:
    """Stands for an object of a pickle whose class is not imported."""

    name = ""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take an item as a list does."""

    def extend(self, values: Any) -> None:
        """Take items as a list does."""


class _Skeleton(pickle.Unpickler):
    """Reads a pickle with placeholders for all objects, so that nothing is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a placeholder of this name; dicts that keep an order are what they are."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        harmless = module.startswith("torch") and not module.startswith("torch.nn.modules")
        return type("_Named", (_Placeholder,), {"name": "" if harmless else f"{module}.{name}"})

    def persistent_load(self, identity: Any) -> Any:
        """Return a placeholder for the numbers of a tensor."""
        return _Placeholder()


def _skeleton(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(each for each in archive.namelist() if each.endswith("data.pkl"))
            with archive.open(name) as file:
                return _Skeleton(file).load()
    except Exception:  # a skeleton only adds places to the message
        return None


def _objects(node: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield places and class names of the objects in a skeleton."""
    if isinstance(node, _Placeholder):
        if node.name and not node.name.startswith(("numpy.", "_codecs.")):
            yield place, node.name
    elif isinstance(node, Mapping) and depth < DEPTH:
        for key, value in node.items():
            yield from _objects(value, f"{place}.{key}" if place else str(key), depth + 1)
    elif isinstance(node, list | tuple) and depth < DEPTH:
        for index, value in enumerate(node):
            yield from _objects(value, f"{place}[{index}]", depth + 1)
