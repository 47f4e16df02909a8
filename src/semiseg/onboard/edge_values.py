"""Values in masks that mean no class: greys and colors of smoothed edges, artifacts of lossy formats, stray pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.data.mask_labels import TRANSPARENT, Value
from semiseg.errors import UserError
from semiseg.onboard.mask_reading import SMALL, mask_files
from semiseg.onboard.mask_values import MaskValues
from semiseg.onboard.survey import Survey

SPECKS = 0.5
"""Share of specks above which a value has no regions."""

BETWEEN = 0.3
"""Share of pixels in thin lines between two others above which a value comes from edges, where several do."""

MOSTLY_BETWEEN = 0.5
SEVERAL, MANY = 3, 12
FEW_MASKS = 1 / 3
RARE = 0.0002

NEAR, BLURRED, LESS = 16, 0.15, 3
"""Distance, share of specks and factor in pixels by which a number counts as an artifact of another one."""

MOST_COLORS = 64
"""Colors of edges that a config may list as not labeled."""

MOST_CLASSES = 255
MOST_PIXELS = 0.25
"""Share of pixels of such values above which masks are no masks."""


@dataclass(frozen=True)
class EdgeValues:
    """Values that mean no class.

    Args:
        values: the values, in order.
        note: what they are, and where; empty without any.
    """

    values: tuple[Value, ...] = ()
    note: str = ""


def edge_values(found: Survey, classes: Sequence[Value] = ()) -> EdgeValues:
    """Find the values that come from smoothed edges, lossy formats or stray pixels.

    Args:
        found: values of all masks.
        classes: values that somebody has written down as classes, which are never taken for such.

    Raises:
        UserError: they are so many that the files are no masks; it names files.
    """
    edges = [value for value in _blurred(found) if value not in classes]
    rest = [value for value in found.pixels if value not in edges]
    masks = [
        mask
        for mask, held in zip(found.masks, found.held, strict=True)
        if any(value in held for value in edges)
    ]
    if len(rest) > MOST_CLASSES or (found.colored and len(edges) > MOST_COLORS):
        raise UserError(_too_many(found, edges, rest, masks))
    if not edges:
        return EdgeValues()
    share = sum(found.pixels[value] for value in edges) / sum(mask.size for mask in masks)
    if len(edges) >= MANY and share > MOST_PIXELS:
        raise UserError(_no_masks(found, edges, masks, share))
    ordered = sorted(edges, key=lambda value: (isinstance(value, str), value))
    return EdgeValues(tuple(ordered), _note(found, ordered, masks))


def _blurred(found: Survey) -> list[Value]:
    """Values without regions: several that lie between others, many of any kind, or one in few masks."""
    never = {0, IGNORE_INDEX, TRANSPARENT}
    thin = [
        value
        for value, count in found.pixels.items()
        if found.specks[value] >= SPECKS * count and value not in never
    ]
    between = [value for value in thin if found.rims[value] >= BETWEEN * found.pixels[value]]
    edges = set(between) if len(between) >= SEVERAL else set()
    if len(thin) >= MANY and not _counts_up(found):
        edges |= set(thin)
    edges |= {value for value in thin if _stray(value, found)}
    if not (found.colored or found.palette or _counts_up(found)):
        edges |= {value for value in found.pixels if value not in never and _few_bands(value, found)}
    if len(edges) >= MANY and not found.colored:
        edges |= _artifacts(found, edges) - never
    return [value for value in found.pixels if value in edges]


def _counts_up(found: Survey) -> bool:
    """Whether the values are 0, 1, 2, ... up to a small number, as those of classes are."""
    numbers = [value for value in found.pixels if isinstance(value, int) and value != IGNORE_INDEX]
    return bool(numbers) and max(numbers) < min(SMALL, 2 * len(numbers))


def _stray(value: Value, found: Survey) -> bool:
    """Whether a value is in few of the masks, and there on edges alone, or in few pixels."""
    rare = found.share([value]) < RARE and _in_few(value, found)
    return rare or _few_bands(value, found)


def _few_bands(value: Value, found: Survey) -> bool:
    """Whether a value is in few of the masks, and there mostly in bands of some pixels between two others."""
    return found.rims[value] >= MOSTLY_BETWEEN * found.pixels[value] and _in_few(value, found)


def _in_few(value: Value, found: Survey) -> bool:
    return 0 < len(found.holders(value)) <= max(1, FEW_MASKS * len(found.masks)) < len(found.masks)


def _artifacts(found: Survey, edges: set[Value]) -> set[Value]:
    """Numbers beside a far more frequent one, in patches with holes, as JPEG makes them."""
    numbers = {value: count for value, count in found.pixels.items() if isinstance(value, int)}
    return {
        value
        for value, count in numbers.items()
        if value not in edges and found.specks[value] >= BLURRED * count
        if any(0 < abs(value - other) <= NEAR and more >= LESS * count for other, more in numbers.items())
    }


def _note(found: Survey, edges: Sequence[Value], masks: Sequence[MaskValues]) -> str:
    files = mask_files([mask.path for mask in masks])
    kind = "specks or thin lines at edges, as smoothing, scaling and lossy formats make them"
    listed = f"{len(edges)} values ({found.share(edges):.2%} of the pixels)"
    if len(edges) <= SEVERAL:
        listed = found.listed(edges)
    return (
        f'{len(masks)} of {len(found.masks)} masks hold {listed} in {kind}: {files}. These count as "not labeled"; '
        "better save these masks again without antialiasing. If they are classes, name all: --classes NAME=VALUE,..."
    )


def _too_many(
    found: Survey, edges: Sequence[Value], rest: Sequence[Value], masks: Sequence[MaskValues]
) -> str:
    total = sum(found.pixels.values())
    kind = "colors" if found.colored else "values"
    frequent = sorted(found.pixels, key=lambda value: -found.pixels[value])[:12]
    shares = {value: found.pixels[value] / total for value in frequent}
    some = ", ".join(f"{value} ({share:.1%})" for value, share in shares.items() if share >= 0.002)
    most = max(found.masks, key=lambda mask: len(mask.pixels))
    where = f"for example {most.path}; expected at most {MOST_CLASSES}"
    if len(rest) <= MOST_CLASSES:
        where = (
            f"{len(edges):,} of them only at edges, in {len(masks)} of {len(found.masks)} masks: "
            f"{mask_files([mask.path for mask in masks])}"
        )
    return (
        f"the masks hold {len(edges) + len(rest):,} {kind}, {where}. Most frequent: {some}. Smoothed edges make new "
        f"{kind}: save the masks again without antialiasing and not by way of JPEG. If these are no masks, name the "
        "folders: --images DIR --masks DIR"
    )


def _no_masks(found: Survey, edges: Sequence[Value], masks: Sequence[MaskValues], share: float) -> str:
    return (
        f"{len(masks)} of {len(found.masks)} masks hold {len(edges)} values without regions, in {share:.0%} of their "
        f"pixels, as pictures and maps of probabilities do: {mask_files([mask.path for mask in masks])}. Expected one "
        "value a class: save in each pixel the number of its class, for example 255 where the probability is above "
        "one half and 0 elsewhere. If these are no masks, name the folders: --images DIR --masks DIR"
    )
