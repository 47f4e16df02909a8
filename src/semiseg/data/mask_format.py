"""Format of masks: numbers or colors, depth, palette, transparency; and whether the masks of a dataset agree in it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from PIL import Image

from semiseg.data.mask_labels import color_text
from semiseg.data.palette import bit_color
from semiseg.data.picture_files import BadFileError, open_picture
from semiseg.data.picture_header import PictureHeader, largest_value
from semiseg.errors import UserError

MaskKind = Literal["gray", "palette", "color", "number"]
KINDS: dict[str, MaskKind] = {
    **dict.fromkeys(("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"), "gray"),
    **dict.fromkeys(("P", "PA"), "palette"),
    **dict.fromkeys(("RGB", "RGBA", "RGBX", "RGBa"), "color"),
}
"""Kind of a mask by Pillow's mode."""

LOSSY = frozenset({"JPEG", "MPO", "JPEG2000", "AVIF"})
LOSSY_TIFF = frozenset({6, 7, 33003, 33005, 34712, 34892, 50001, 50002})
"""Values of TIFF's tag Compression for JPEG, JPEG 2000, WebP and JPEG XL."""

TIFF_COMPRESSION, TIFF_PHOTOMETRIC = 259, 262
WHITE = 255
KIND_WORDS: Mapping[Any, str] = {
    "gray": "a grey mask, read by its values",
    "color": "a mask in color",
    "palette": "a palette mask, read by its indices",
}
DEPTH_WORDS: Mapping[Any, str] = {
    False: "a mask of 8 bits or more a pixel",
    True: "a mask of one bit a pixel",
}
"""What a mask is, by groups that exclude each other; the first is preferred where two are as large."""
CURE = (
    "Save all masks in the same way, or name the colors of the classes in dataset.values, which are the same in a "
    "viewer whatever the palette; `semiseg init FOLDER` writes them"
)


@dataclass(frozen=True)
class MaskFormat:
    """Format of one mask, or the one that all masks of a dataset share.

    Args:
        kind: "gray" and "palette" are read by their numbers, "color" by the colors that a viewer shows. For a
            dataset, "number" takes grey and palette masks together, whatever the colors of the palettes.
        bits: bits of a number: 1, 8, 16 or 32; those of an index or of a channel of a color count as 8.
        alpha: whether pixels may be fully transparent.
        white: number that white of a grey mask of one bit means, 1 or 255; ``None`` where there is no such mask.
        colors: color of each index of a palette as "#rrggbb"; for a dataset those of the indices that occur.
    """

    kind: MaskKind
    bits: int = 8
    alpha: bool = False
    white: int | None = None
    colors: Mapping[int, str] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """The format as plain values for a config; what is as by default is left out."""
        found: dict[str, Any] = {"kind": self.kind}
        found |= {"bits": self.bits} if self.bits != 8 else {}
        found |= {"alpha": True} if self.alpha else {}
        found |= {"white": self.white} if self.white is not None else {}
        return found | ({"colors": dict(sorted(self.colors.items()))} if self.colors else {})

    def with_indices(self, used: set[int]) -> "MaskFormat":
        """The format with the colors of some indices alone."""
        return replace(self, colors={index: color for index, color in self.colors.items() if index in used})


PUBLISHED = MaskFormat("number")
"""Format of datasets whose numbers are published, whatever palette an archive gives them."""


def format_of_settings(values: Mapping[str, Any]) -> MaskFormat:
    """Return the format that ``MaskFormat.settings`` has written.

    Raises:
        UserError: unknown or wrong entries.
    """
    known = ("kind", "bits", "alpha", "white", "colors")
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"expected some of {', '.join(known)}", key=f"dataset.mask_format.{unknown[0]}")
    checks: dict[str, tuple[Any, ...]] = {
        "kind": ("gray", "palette", "color", "number"),
        "bits": (1, 8, 16, 32),
        "alpha": (True, False),
        "white": (None, 1, WHITE),
    }
    given = {"bits": 8, "alpha": False, "white": None, **values}
    for key, allowed in checks.items():
        if given.get(key) not in allowed:
            choices = ", ".join(str(each).lower() for each in allowed)
            raise UserError(
                f"expected one of {choices}", key=f"dataset.mask_format.{key}", value=given.get(key)
            )
    colors = {int(index): str(color).lower() for index, color in (values.get("colors") or {}).items()}
    return MaskFormat(given["kind"], given["bits"], given["alpha"], given["white"], colors)


def read_format(path: Path) -> MaskFormat:
    """Return the format of a mask by its header and palette; no pixels are decoded.

    Raises:
        BadFileError: no mask that can be read; see ``open_mask``.
    """
    image, found = open_mask(path)
    image.close()
    return found


def open_mask(path: Path) -> tuple[Image.Image, MaskFormat]:
    """Open a mask and return it, not yet decoded, with its format.

    Raises:
        BadFileError: missing, unreadable, more than one picture, a lossy format, or a depth or mode in which
            numbers or colors are not those of classes.
    """
    image, header = open_picture(path, "mask")
    if reason := _lossy(image, path) or _depth_fault(image, header):
        raise BadFileError(path, reason)
    kind = KINDS[image.mode]
    alpha = "transparency" in image.info or image.mode[-1] in "Aa"
    colors = palette_colors(image) if kind == "palette" else {}
    return image, MaskFormat(kind, header.bits if kind == "gray" else 8, alpha, None, colors)


def palette_colors(image: Image.Image) -> Mapping[int, str]:
    """Color of each index of a palette as "#rrggbb", as far as the palette reaches."""
    return _color_texts(bytes(image.getpalette("RGB") or []))


@lru_cache(maxsize=64)  # since most masks of a dataset have the same palette
def _color_texts(palette: bytes) -> Mapping[int, str]:
    return MappingProxyType(
        {place // 3: f"#{palette[place : place + 3].hex()}" for place in range(0, len(palette) // 3 * 3, 3)}
    )


def agree(formats: Mapping[Path, MaskFormat]) -> tuple[MaskFormat, dict[Path, str]]:
    """Compare the formats of masks that are read by their numbers.

    Grey masks of one bit are compared by ``white``, which whoever knows the values sets before; without it they
    differ from those of more bits. Palettes are compared by all their colors; restrict them to the indices that
    occur (``MaskFormat.with_indices``) where that matters. A mask in color counts as grey, as it is where its
    channels are equal; reading refuses others. Palette masks count as grey too where their colors number the
    indices by themselves: a ramp of grey, or the colors of PASCAL VOC.

    Args:
        formats: format of each file, at least one.

    Returns:
        The format that most files share, and for every file that differs from it the reason.
    """
    groups = _groups(formats)
    by_value = any(each.format.kind != "palette" for each in groups)
    kinds = {each: "gray" if by_value and _counts_as_gray(each.format) else "palette" for each in groups}
    faults = _minority(kinds, KIND_WORDS)
    depths = {
        each: each.format.bits == 1 and each.format.white is None for each in groups if kinds[each] == "gray"
    }
    faults = _minority(depths, DEPTH_WORDS) | faults
    colors, differing = _palettes([each for each in groups if each not in faults])
    faults |= differing
    rest = [each.format for each in groups if each not in faults]
    gray = [each for each in rest if each.kind != "palette"]
    common = MaskFormat(
        kind="gray" if gray else "palette",
        bits=max((each.bits for each in gray), default=8),
        alpha=any(each.alpha for each in rest),
        white=next((each.white for each in gray if each.white is not None), None),
        colors={} if gray else colors,
    )
    return common, {path: reason for each, reason in faults.items() for path in each.files}


@dataclass(frozen=True, eq=False)
class _Group:
    """Files of one format."""

    format: MaskFormat
    files: list[Path]


def _groups(formats: Mapping[Path, MaskFormat]) -> list[_Group]:
    """Files by equal formats, in the order of the first files; a dataset has thousands of files and few formats."""
    found: dict[Any, _Group] = {}
    for path, each in formats.items():
        key = (each.kind, each.bits, each.alpha, each.white, tuple(each.colors.items()))
        found.setdefault(key, _Group(each, [])).files.append(path)
    return list(found.values())


def difference(found: MaskFormat, shared: MaskFormat, used: Callable[[int], bool]) -> str | None:
    """Return the reason why a mask does not have the format that the masks of its dataset share, or ``None``.

    Args:
        found: format of the mask as decoded.
        shared: format of the dataset.
        used: whether an index occurs in the mask; asked for those whose color differs.
    """
    if found.alpha and not shared.alpha:
        return "fully transparent pixels, which the other masks do not have"
    if shared.kind in ("color", "number"):
        return None
    if found.kind == "palette" and shared.kind == "palette":
        wrong = [index for index, color in shared.colors.items() if found.colors.get(index, color) != color]
        index = next((each for each in wrong if used(each)), None)
        return None if index is None else _other_color(index, found.colors[index], shared.colors[index])
    if not (_counts_as_gray(found) and _counts_as_gray(shared)):
        return f"{KIND_WORDS[found.kind]}; the others are {KIND_WORDS[shared.kind]}"
    if found.kind == "gray" and shared.kind == "gray":
        if found.bits == 1 and shared.white is None:
            return f"{DEPTH_WORDS[True]}; the others are not, so its white may be 1 or 255"
        if shared.bits == 1 and found.bits > 1:
            return f"{DEPTH_WORDS[False]}; the others are {DEPTH_WORDS[True]}, whose white is 1"
    return None


def _other_color(index: int, found: str, usual: str, where: str = "in others it is") -> str:
    return f"index {index} of its palette is {found}; {where} {usual}"


def _counts_as_gray(found: MaskFormat) -> bool:
    if found.kind != "palette":
        return True
    ramp = {index: color_text(index * 0x010101) for index in found.colors}
    voc = {index: color_text(int.from_bytes(bytes(bit_color(index)))) for index in found.colors}
    return dict(found.colors) in (ramp, voc)


def _minority(kinds: Mapping[_Group, Any], words: Mapping[Any, str]) -> dict[_Group, str]:
    """Reasons for the groups that are not of the kind that most files have."""
    counts: Counter[Any] = Counter()
    for group, kind in kinds.items():
        counts[kind] += len(group.files)
    if len(counts) < 2:
        return {}
    most = max((kind for kind in words if kind in counts), key=lambda kind: counts[kind])
    example = next(group.files[0] for group, kind in kinds.items() if kind == most)
    return {
        group: f"{words[kind]}, unlike {counts[most]} others such as {example}: {words[most]}"
        for group, kind in kinds.items()
        if kind != most
    }


def _palettes(groups: Sequence[_Group]) -> tuple[dict[int, str], dict[_Group, str]]:
    """The most frequent color of each index, and reasons for the groups where an index has another one."""
    counts: dict[int, Counter[str]] = {}
    for group in groups:
        for index, color in group.format.colors.items():
            counts.setdefault(index, Counter())[color] += len(group.files)
    usual = {index: each.most_common(1)[0][0] for index, each in sorted(counts.items())}
    faults: dict[_Group, str] = {}
    for group in groups:
        colors = group.format.colors
        wrong = [index for index in sorted(colors) if colors[index] != usual[index]]
        if wrong:
            index = wrong[0]
            example = next(each.files[0] for each in groups if each.format.colors.get(index) == usual[index])
            where = f"in {counts[index][usual[index]]} others, for example {example}, it is"
            faults[group] = _other_color(index, colors[index], usual[index], where)
    return usual, faults


def _lossy(image: Image.Image, path: Path) -> str | None:
    name = image.format
    if name == "WEBP" and not _webp_lossless(path):
        name = "lossy WebP"
    elif name == "TIFF" and image.tag_v2.get(TIFF_COMPRESSION) in LOSSY_TIFF:  # type: ignore[attr-defined]
        name = "TIFF with lossy compression"
    elif name not in LOSSY:
        return None
    return (
        f"{name}; a mask has to be stored without loss. Lossy formats make other numbers and colors at edges: export "
        "it again as PNG (TIFF, BMP, GIF, PGM, PPM and lossless WebP are read too)"
    )


def _webp_lossless(path: Path) -> bool:
    with path.open("rb") as file:
        place, head = 12, file.read(12)
        end = 8 + int.from_bytes(head[4:8], "little")
        while place < end:
            file.seek(place)
            chunk = file.read(8)
            if chunk[:4] in (b"VP8L", b"VP8 ") or len(chunk) < 8:
                return chunk[:4] == b"VP8L"
            length = int.from_bytes(chunk[4:], "little")
            place += 8 + length + length % 2
    return False


def _depth_fault(image: Image.Image, header: PictureHeader) -> str | None:
    """Reason why the numbers of a mask are not those in the file, or no numbers of classes."""
    advice = "save it as grey or palette PNG of 8 bits"
    if image.mode not in KINDS:
        return f"mode {image.mode} ({header.bits} bits, {header.sample}); expected whole numbers or RGB: {advice}"
    kind = KINDS[image.mode]
    if kind == "gray" and header.bits in (2, 4):
        return (
            f"grey of {header.bits} bits a pixel; expected 8 bits: programs read its values as 0 to "
            f"{2**header.bits - 1} or spread over 0 to 255, so {advice}"
        )
    if image.format == "PPM" and image.mode in ("L", "I", "RGB") and largest_value(image) not in (255, 65535):
        return (
            f"largest value {largest_value(image)} in its header, over which readers spread values; expected 255: "
            f"{advice}"
        )
    if image.format == "TIFF" and image.tag_v2.get(TIFF_PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
        return f"TIFF in which 0 means white, so programs read its values the other way round: {advice}"
    if header.bits > 8 and (kind == "color" or image.mode[-1] in "Aa"):
        return f"{header.bits} bits a channel; expected 8: {advice}"
    if header.sample == "signed" and header.bits <= 8:
        return f"signed numbers of {header.bits} bits: {advice}"
    return None
