"""Masks of a dataset from label files: all are painted before the first gets its name."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from semiseg.errors import UserError
from semiseg.files import temporary, writes
from semiseg.labels.image_places import ImagePlaces, PlacedPicture, common_folder, placed
from semiseg.labels.label_formats import LabelFormat
from semiseg.labels.label_record import Findings, Frame, LabelSet, Order
from semiseg.labels.mask_writing import BACKGROUND, BACKGROUNDS, ChosenClasses, choose_classes, write_masks
from semiseg.progress_bar import progress


@dataclass(frozen=True)
class Reading:
    """Settings of an import.

    Args:
        classes: names in the order of the labels; ``None`` takes the order of the files.
        void: names whose pixels are not labeled.
        background: class of what no shape covers; ``None`` takes one that is called so, else a new one.
        no_background: whether what no shape covers is not labeled.
        crowd_is_void: whether crowds are not labeled.
        empty_is_background: whether pictures without shapes are background instead of unlabeled.
        order: what is painted over what; ``None`` takes what the format says.
        frame: whether labels are drawn on pictures as shown or as stored; ``None`` takes what sizes prove.
    """

    classes: Sequence[str] | None = None
    void: Sequence[str] = ()
    background: str | None = None
    no_background: bool = False
    crowd_is_void: bool = True
    empty_is_background: bool = False
    order: Order | None = None
    frame: Frame | None = None


@dataclass(frozen=True)
class Painted:
    """Masks that were painted.

    Args:
        chosen: classes.
        images: folder of the images.
        pictures: pictures by id, which is their path below ``images`` without extension.
        masks: number of masks.
    """

    chosen: ChosenClasses
    images: Path
    pictures: dict[str, PlacedPicture]
    masks: int


def paint(
    content: LabelSet,
    kind: LabelFormat,
    places: ImagePlaces,
    reading: Reading,
    folder: Path,
    found: Findings,
) -> Painted:
    """Paint the masks of label files into a folder.

    Args:
        content: content of the files.
        kind: their format.
        places: search for their images.
        reading: settings.
        folder: existing folder of the masks.
        found: gets faults and notes.

    Raises:
        UserError: the classes do not fit the files.
    """
    chosen = _chosen(kind, content, reading, found)
    pictures = list(placed(content.pictures, places, reading.frame, found))
    base = places.given or common_folder(each.image for each in pictures)
    by_id = _by_id(pictures, base, found)
    masked = {
        folder / f"{image_id}.png": each
        for image_id, each in by_id.items()
        if each.picture.labeled or reading.empty_is_background
    }
    with progress("masks", len(masked)) as tick:
        write_masks(masked, chosen, reading.order or kind.order, reading.crowd_is_void, found, tick)
    # A picture with one faulty shape would have wrong labels where that shape should be.
    faulty = {(fault.id, fault.file) for fault in found.faults}
    for path, each in masked.items():
        if (each.picture.file, str(each.picture.source)) in faulty:
            path.unlink(missing_ok=True)
    _note(content, by_id, reading, found)
    return Painted(chosen, base, by_id, sum(path.exists() for path in masked))


def _chosen(kind: LabelFormat, content: LabelSet, reading: Reading, found: Findings) -> ChosenClasses:
    """Choose the classes, and say what is the background and in which order they are."""
    rasters = any(picture.raster for picture in content.pictures)
    covers_all = (kind.covers_all or rasters) and reading.background is None
    background = None
    if not (covers_all or reading.no_background):
        so_called = next((name for name in content.classes if name.casefold() in BACKGROUNDS), BACKGROUND)
        background = reading.background or so_called
        found.notes.append(
            f'what no shape covers is class {background}: --background NAME renames it, --no-background makes it "not '
            'labeled"'
        )
    elif not rasters:
        found.notes.append("what no shape covers is not labeled: --background NAME makes it a class")
    if reading.empty_is_background and background is None:
        raise UserError("--empty background: there is no class background; name it by --background NAME")
    order = "as --classes gives them" if reading.classes else content.order_of_classes
    found.notes.append(f"order of the classes: {order}")
    return choose_classes(content, reading.classes, reading.void, background)


def _by_id(pictures: Sequence[PlacedPicture], base: Path, found: Findings) -> dict[str, PlacedPicture]:
    by_id: dict[str, PlacedPicture] = {}
    for each in pictures:
        path = each.image.resolve()
        if not path.is_relative_to(base):
            found.fault(each.picture.file, each.picture.source, f"{each.image} is not below --images {base}")
            continue
        image_id = path.relative_to(base).with_suffix("").as_posix()
        other = by_id.setdefault(image_id, each)
        if other is not each:
            names = f"{other.image.name} and {each.image.name}"
            found.fault(
                each.picture.file, each.picture.source, f"{names} differ only in the extension; rename one"
            )
    return by_id


def _note(content: LabelSet, by_id: dict[str, PlacedPicture], reading: Reading, found: Findings) -> None:
    """Note what was left out, and what may be meant in another way."""
    for kind, count in found.left_out.items():
        if count:
            found.notes.append(f"left out: {count:,} {kind}")
    empty = sum(not each.picture.labeled for each in by_id.values())
    if empty and not reading.empty_is_background:
        found.notes.append(
            f"{empty:,} pictures have no shape and count as unlabeled: --empty background labels them as background"
        )
    crowds = sum(shape.crowd for picture in content.pictures for shape in picture.shapes)
    if crowds:
        what = (
            "not labeled: --crowd class gives them their class" if reading.crowd_is_void else "of their class"
        )
        found.notes.append(
            f"{crowds:,} crowds are {what}; all else is painted over them. CVAT and others mark all painted masks so"
        )
    turned = [each for each in by_id.values() if each.orientation != 1]
    if turned:
        stored = sum(each.stored for each in turned)
        found.notes.append(
            f"EXIF turns {len(turned):,} pictures; labels of {len(turned) - stored:,} are read as drawn on the picture "
            f"as shown, of {stored:,} as stored: --frame shown|stored says it for all"
        )


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make a folder that becomes ``target`` by ``settle``; what is unfinished at the end of the block is removed."""
    part = temporary(target)
    shutil.rmtree(part, ignore_errors=True)
    with writes(target, "Make room, or work in another folder."):
        part.mkdir(parents=True)
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def settled(part: Path, target: Path) -> Iterator[None]:
    """Give a folder its name for the block; an error in the block brings back what was there before."""
    before = temporary(target.with_name(f"{target.name}.before"))
    if target.exists():
        os.replace(target, before)  # noqa: PTH105 - a folder
    os.replace(part, target)  # noqa: PTH105
    try:
        yield
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        if before.exists():
            os.replace(before, target)  # noqa: PTH105
        raise
    shutil.rmtree(before, ignore_errors=True)
