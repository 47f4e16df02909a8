"""Every random number is a function of what it is for, never of what ran before."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on nothing but ``parts``.

    Args:
        parts: for example ``(seed, step name, iteration, slot, view)``; ``1`` and ``"1"`` differ.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
