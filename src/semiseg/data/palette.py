"""Distinct colors for any number of classes."""

Color = tuple[int, int, int]


def bit_color(index: int) -> Color:
    """Return the RGB color (0-255) of a label value by PASCAL VOC's rule.

    The bits of the value go in turn to red, green and blue, the lowest to the highest bit of a channel: 0 is
    black, 1 (128, 0, 0), 3 (128, 128, 0), 255 (224, 224, 192). All 256 colors differ.
    """
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]
