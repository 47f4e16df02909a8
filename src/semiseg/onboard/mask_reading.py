"""Choice between the two ways of reading the masks of a dataset, by numbers or by colors, from all of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semiseg.data.mask_format import WHITE, MaskFormat, MaskKind
from semiseg.data.mask_labels import TRANSPARENT, Value, color_text, parse_color
from semiseg.data.palette import bit_color
from semiseg.errors import UserError
from semiseg.onboard.mask_values import CLEAR, MaskValues
from semiseg.splits.lists import shown

SMALL = 64
"""Number below which numbers count classes, and are no shades of grey."""

FEW_MASKS = 1 / 3
SHOWN_MASKS = 6


@dataclass(frozen=True)
class MaskReading:
    """How all masks of a dataset are read.

    Args:
        format: format that they share.
        notes: differences between the files that change nothing.
    """

    format: MaskFormat
    notes: tuple[str, ...] = ()

    @property
    def by_color(self) -> bool:
        """Whether colors count, and not numbers."""
        return self.format.kind == "color"

    def value(self, mask: MaskValues, code: int) -> Value:
        """Number or color that a code of a mask means."""
        if code == CLEAR:
            return TRANSPARENT
        one_bit = mask.format.kind == "gray" and mask.format.bits == 1
        if not self.by_color:
            return code * (self.format.white or 1) if one_bit else code
        if mask.format.kind == "palette":
            return _index_color(mask, code)
        if mask.format.kind == "color":
            return color_text(code)
        return color_text(code * (0xFFFFFF if one_bit else 0x010101))


def choose_reading(masks: Sequence[MaskValues]) -> MaskReading:
    """Decide how masks are read: by their numbers, unless some show colors or their palettes disagree.

    Args:
        masks: values of all masks.

    Raises:
        UserError: files may be read in two ways that differ; it names them.
    """
    palettes = [mask for mask in masks if mask.format.kind == "palette"]
    gray = [mask for mask in masks if mask.format.kind == "gray"]
    alpha = any(CLEAR in mask.pixels for mask in masks)
    notes = _opaque(masks)
    if len(palettes) + len(gray) < len(masks) or not _agree(palettes) or (not gray and _moved(palettes)):
        return _by_color(masks, alpha, notes)
    if palettes and gray:
        if _colors_fit(gray, palettes) and not _numbers_fit(gray, palettes):
            return _by_color(masks, alpha, notes)
        fits = _numbers_fit(gray, palettes) and _same_meaning(gray, palettes)
        if not fits or _voc_in_other_order(palettes):
            raise UserError(_mixed(gray, palettes))
        few, kind = (gray, "grey") if len(gray) < len(palettes) else (palettes, "palette masks")
        notes.append(
            f"{len(few)} masks are {kind}, the others not; all are read by their numbers: {_files(few)}"
        )
    white, more = _white(gray, palettes)
    bits = max((mask.format.bits for mask in gray), default=8)
    if palettes:
        kind_of_all: MaskKind = "number" if gray else "palette"
        bits = max(bits, 8)
        colors = {} if gray else _used_colors(palettes)
        return MaskReading(MaskFormat(kind_of_all, bits, alpha, white, colors), (*notes, *more))
    return MaskReading(MaskFormat("gray", bits, alpha, white), (*notes, *more))


def _opaque(masks: Sequence[MaskValues]) -> list[str]:
    """A note where most masks have transparent pixels and few have none, which may show something else there."""
    opaque = [mask for mask in masks if CLEAR not in mask.pixels]
    if not 0 < len(opaque) <= FEW_MASKS * len(masks):
        return []
    return [
        f"{len(opaque)} of {len(masks)} masks have no transparent pixel, the others have: {_files(opaque)}. See "
        "whether they were saved without transparency, and what they show in its place"
    ]


def _by_color(masks: Sequence[MaskValues], alpha: bool, notes: Sequence[str]) -> MaskReading:
    if deep := [mask for mask in masks if mask.format.bits > 8]:
        raise UserError(
            f"some masks are color-coded, and these are grey with {deep[0].format.bits} bits: {_files(deep)}. Save "
            "all in the same way"
        )
    if numbers := _numbers_among_colors(masks):
        values = sorted({code for mask in numbers for code in mask.pixels})
        raise UserError(
            f"some masks are color-coded, and these are grey and hold {shown(map(str, values))}, which are no colors "
            f"of the others: {_files(numbers)}. Save all in the same way"
        )
    kinds = {
        kind: [mask for mask in masks if mask.format.kind == kind] for kind in ("color", "palette", "gray")
    }
    words = {"color": "in color", "palette": "with a palette", "gray": "grey"}
    found = [f"{len(kinds[kind])} {words[kind]}" for kind in kinds if kinds[kind]]
    note = f"masks are stored in different ways ({', '.join(found)}); all are read by the colors that a viewer shows"
    return MaskReading(MaskFormat("color", 8, alpha), (*notes, note) if len(found) > 1 else tuple(notes))


def _numbers_among_colors(masks: Sequence[MaskValues]) -> list[MaskValues]:
    """Grey files with small numbers that would be nearly black colors, which no other file has."""
    colors = {
        _index_color(mask, code) if mask.format.kind == "palette" else color_text(code)
        for mask in masks
        if mask.format.kind != "gray"
        for code in mask.pixels
        if code != CLEAR
    }
    gray = [mask for mask in masks if mask.stored == "gray" and mask.format.bits > 1]
    return [
        mask
        for mask in gray
        if any(0 < code < SMALL and color_text(code * 0x010101) not in colors for code in mask.pixels)
    ]


def _index_color(mask: MaskValues, index: int) -> str:
    return mask.format.colors.get(index, "#000000")  # as Pillow shows indices beyond a short palette


def _used_colors(palettes: Iterable[MaskValues]) -> dict[int, str]:
    return {
        code: _index_color(mask, code) for mask in palettes for code in sorted(mask.pixels) if code != CLEAR
    }


def _agree(palettes: Iterable[MaskValues]) -> bool:
    """Whether each index has one color in all palettes."""
    usual: dict[int, str] = {}
    return all(
        usual.setdefault(code, _index_color(mask, code)) == _index_color(mask, code)
        for mask in palettes
        for code in mask.pixels
        if code != CLEAR
    )


def _moved(palettes: Sequence[MaskValues]) -> bool:
    """Whether masks give one color several indices, each mask one of them."""
    by_color: dict[str, set[int]] = {}
    for mask in palettes:
        for code in mask.pixels.keys() & mask.format.colors.keys():
            by_color.setdefault(mask.format.colors[code], set()).add(code)
    several = [codes for codes in by_color.values() if len(codes) > 1]
    return bool(several) and all(
        len(codes & mask.pixels.keys()) <= 1 for codes in several for mask in palettes
    )


def _voc_in_other_order(palettes: Iterable[MaskValues]) -> bool:
    """Whether the indices have the colors of PASCAL VOC, and not each its own."""
    colors = {index: parse_color(color) for index, color in _used_colors(palettes).items()}
    usual = {index: bit_color(index) for index in colors}
    return colors != usual and set(colors.values()) == set(usual.values())


def _numbers(masks: Iterable[MaskValues]) -> set[int]:
    """Numbers in grey masks of more than one bit."""
    return {code for mask in masks if mask.format.bits > 1 for code in mask.pixels if code != CLEAR}


def _numbers_fit(gray: Iterable[MaskValues], palettes: Iterable[MaskValues]) -> bool:
    """Whether the values of grey masks may be indices: those of the palettes, or small numbers like them."""
    known = set(_used_colors(palettes))
    more = _numbers(gray) - known - {0, WHITE}
    return not more or (max(more) < SMALL and 2 * len(more | known) > max(more))


def _colors_fit(gray: Iterable[MaskValues], palettes: Iterable[MaskValues]) -> bool:
    shown_colors = {color_text(value * 0x010101) for value in _numbers(gray)}
    return shown_colors <= set(_used_colors(palettes).values())


def _same_meaning(gray: Iterable[MaskValues], palettes: Iterable[MaskValues]) -> bool:
    """Whether no grey of the grey masks is the color of another index."""
    colors = _used_colors(palettes)
    shades = {color_text(value * 0x010101): value for value in _numbers(gray)}
    return all(shades.get(color, index) == index for index, color in colors.items())


def _white(gray: Sequence[MaskValues], palettes: Sequence[MaskValues]) -> tuple[int | None, list[str]]:
    """Number that white of masks of one bit means, and a note where other masks have decided it.

    Raises:
        UserError: others hold 1 and 255.
    """
    one_bit = [mask for mask in gray if mask.format.bits == 1]
    if not one_bit:
        return None, []
    if len(one_bit) == len(gray) and not palettes:
        return 1, []
    others = (_numbers(gray) or set(_used_colors(palettes))) - {0}
    if len(one_bit) < len(gray) and {1, WHITE} <= others:
        raise UserError(
            f"{len(one_bit)} masks have one bit a pixel, the others hold 1 and {WHITE}, and white may be either: "
            f"{_files(one_bit)}. Save them again with 8 bits"
        )
    white = 1 if 1 in others or (others and max(others) < SMALL) else WHITE
    return white, [
        f"{len(one_bit)} masks have one bit a pixel; their white is read as {white}: {_files(one_bit)}"
    ]


def _mixed(gray: Sequence[MaskValues], palettes: Sequence[MaskValues]) -> str:
    few, kind = (gray, "grey") if len(gray) <= len(palettes) else (palettes, "palette masks")
    colors: Mapping[int, str] = _used_colors(palettes)
    return (
        f"{len(gray)} masks are grey and hold {shown(map(str, sorted(_numbers(gray))))}; {len(palettes)} have a "
        f"palette of {shown(f'{index} {color}' for index, color in sorted(colors.items()))}. Grey values may be "
        f"indices, or shades of colors as some editors save them. These are {kind}: {_files(few)}. Save "
        "them as the others"
    )


def _files(masks: Sequence[MaskValues]) -> str:
    return mask_files([mask.path for mask in masks])


def mask_files(paths: Sequence[Path]) -> str:
    """Names of mask files for a message."""
    return shown((path.name for path in paths), SHOWN_MASKS)
