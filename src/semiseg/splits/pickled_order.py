"""Reading the order of numbers that a pickle holds, without running it: a pickle may run any program."""

import pickletools
from pathlib import Path

import numpy as np

from semiseg.errors import UserError


def read_order(path: Path, count: int) -> list[int]:
    """Return the permutation of 0 to ``count - 1`` that a pickled list or array of numpy holds.

    Only the numbers in the file are looked at; nothing that it names is imported or called.

    Raises:
        UserError: the file is missing, is no pickle, or holds no such permutation.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    numbers: list[int] = []
    blocks: list[bytes] = []
    try:
        for _, argument, _ in pickletools.genops(data):
            if isinstance(argument, int):
                numbers.append(argument)
            elif isinstance(argument, bytes | bytearray):
                blocks.append(bytes(argument))
            elif isinstance(argument, str) and argument.isascii() is False:
                blocks.append(argument.encode("latin-1", "replace"))
    except ValueError as error:
        raise UserError(f"{path} is no pickle that can be read: {error}") from error
    expected = list(range(count))
    arrays = [
        np.frombuffer(each, f"<i{size}") for size in (8, 4) for each in blocks if len(each) == size * count
    ]
    found = [each.tolist() for each in arrays]
    # Numbers of memo entries and lengths stand among those of a list.
    found += [numbers[start : start + count] for start in range(min(len(numbers) - count + 1, 10))]
    for each in found:
        if sorted(each) == expected:
            return list(each)
    raise UserError(f"{path} does not hold the numbers 0 to {count - 1:,}, each once")
