"""The packed masks of Label Studio's brush: four bytes a pixel, of which the last counts.

Source of the format: rle-pack of https://github.com/thi-ng/umbrella (Apache-2.0), as a stream of bits: 32 bits the
number of values, 5 the bits of a value less 1, four times 4 the bits of a length less 1; then for each run one bit
(1: a value that is repeated, 0: values one by one), two bits that choose one of the four lengths, the number of values
less 1 in so many bits, and the value or values.
"""

from collections.abc import Sequence

import numpy as np

from semiseg.contracts.dataset import Array
from semiseg.labels.outlines import Bits
from semiseg.labels.run_lengths import run_lengths

CHANNELS = 4
HALF = 128
"""Smallest value that counts as set; a brush has smoothed edges."""
LENGTH_BITS = (3, 4, 8, 16)


class _Bits:
    """A stream of bits.

    Args:
        data: bytes, the highest bit first.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def number(self, bits: int) -> int:
        """Return the number of the next bits."""
        end = self._place + bits
        if end > 8 * len(self._data):
            raise ValueError("a brush mask that is cut off")
        part = int.from_bytes(self._data[self._place >> 3 : (end + 7) >> 3])
        self._place = end
        return (part >> (-end % 8)) & ((1 << bits) - 1)

    def bytes(self, count: int) -> Array:
        """Return the next bytes."""
        first, end = self._place >> 3, (self._place + 8 * count + 7) >> 3
        bits = np.unpackbits(np.frombuffer(self._data[first:end], np.uint8))
        shift = self._place & 7
        self._place += 8 * count
        if self._place > 8 * len(self._data):
            raise ValueError("a brush mask that is cut off")
        return np.packbits(bits[shift : shift + 8 * count])


def from_brush(values: Sequence[int], size: tuple[int, int]) -> Bits:
    """Return the mask ``(H, W) bool`` of a brush.

    Args:
        values: packed bytes.
        size: height and width.

    Raises:
        ValueError: cut off, or of another size.
    """
    stream = _Bits(bytes(values))
    total = stream.number(32)
    if total != size[0] * size[1] * CHANNELS:
        raise ValueError(
            f"a brush mask of {total} values; expected {CHANNELS} for each of {size[1]}x{size[0]} pixels"
        )
    if (word := stream.number(5) + 1) != 8:
        raise ValueError(f"a brush mask of {word} bits a value; expected 8")
    lengths = [stream.number(4) + 1 for _ in range(4)]
    unpacked = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated = stream.number(1)
        count = min(stream.number(lengths[stream.number(2)]) + 1, total - done)
        unpacked[done : done + count] = stream.number(8) if repeated else stream.bytes(count)
        done += count
    return unpacked.reshape(*size, CHANNELS)[..., -1] >= HALF


def to_brush(bits: Bits) -> list[int]:
    """Return a mask ``(H, W) bool`` as packed bytes, all four values of a pixel 0 or 255."""
    text = [f"{bits.size * CHANNELS:032b}{7:05b}", *(f"{each - 1:04b}" for each in LENGTH_BITS)]
    for place, run in enumerate(run_lengths(bits.ravel())):
        left = run * CHANNELS
        while left:
            count = min(left, 1 << LENGTH_BITS[-1])
            which = next(i for i, each in enumerate(LENGTH_BITS) if count <= 1 << each)
            text.append(f"1{which:02b}{count - 1:0{LENGTH_BITS[which]}b}{255 * (place % 2):08b}")
            left -= count
    joined = "".join(text)
    joined += "0" * (-len(joined) % 8)
    return list(int(joined, 2).to_bytes(len(joined) // 8))
