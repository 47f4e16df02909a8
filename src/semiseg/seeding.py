"""Seeds: every random number is a function of its purpose, never of what ran before."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends only on ``parts``.

    Args:
        parts: parts of the purpose, for example ``(seed, step name, iteration, slot, view)``; ``1`` and ``"1"`` differ.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (all devices)."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
