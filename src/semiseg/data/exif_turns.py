"""Pictures that EXIF turns or mirrors, and whether sizes prove that their masks were drawn on what is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from semiseg.data.file_index import NOTHING_KNOWN, FileIndex, each_read
from semiseg.data.index_file import PictureFrame
from semiseg.data.picture_files import Exif, size_and_orientation

WORDS = {
    1: "upright",
    2: "mirrored",
    3: "half turned",
    4: "mirrored upside down",
    5: "mirrored and turned by a quarter",
    6: "turned by a quarter",
    7: "mirrored and turned by a quarter",
    8: "turned by a quarter",
}
OTHER: dict[Exif, Exif] = {"apply": "ignore", "ignore": "apply"}
DRAWN: dict[Exif, str] = {"apply": "the upright image", "ignore": "the stored pixels"}


def frame_of(path: Path, exif: Exif) -> PictureFrame:
    """Read size and orientation from the header of a picture; see ``size_and_orientation``."""
    return PictureFrame(*size_and_orientation(path, exif))


@dataclass(frozen=True)
class Turns:
    """What EXIF does to labeled images.

    Args:
        turned: orientation of each image that its EXIF turns or mirrors otherwise than its mask.
        proven: ids whose sizes show that the mask was drawn on the image as it is read.
        against: ids whose sizes show the contrary.
        unproven: ids where sizes show nothing: half turns, mirrored and square images.
        faults: reason for each id that cannot be trusted, since others are ``against``.
        note: sentence for people; ``None`` where no image is turned.
    """

    turned: Mapping[str, int]
    proven: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


def find_turns(files: Mapping[str, tuple[Path, Path]], exif: Exif, index: FileIndex = NOTHING_KNOWN) -> Turns:
    """Compare the EXIF orientations and the sizes of images and of their masks; only headers are read.

    Args:
        files: image and mask of each id.
        exif: whether the dataset applies the orientation.
        index: headers that are known already.
    """
    turned: dict[str, int] = {}
    found: dict[str, list[str]] = {"proven": [], "against": [], "unproven": []}
    for image_id, (image, mask) in _frames(files, exif, index).items():
        if image.orientation == mask.orientation:
            continue
        turned[image_id] = image.orientation if image.orientation != 1 else mask.orientation
        if (image.orientation > 4) == (mask.orientation > 4) or image.size == image.size[::-1]:
            found["unproven"].append(image_id)
        elif image.size in (mask.size, mask.size[::-1]):
            found["proven" if image.size == mask.size else "against"].append(image_id)
    if not turned:
        return Turns({})
    proven, against, unproven = (tuple(found[kind]) for kind in ("proven", "against", "unproven"))
    faults = {each: _unsafe(turned[each], len(against), exif) for each in unproven} if against else {}
    example = str(files[unproven[0]][0]) if unproven else ""
    counts = (len(turned), len(files), len(proven), len(against), len(unproven))
    return Turns(turned, proven, against, unproven, faults, _note(counts, example, exif))


def _frames(
    files: Mapping[str, tuple[Path, Path]], exif: Exif, index: FileIndex
) -> dict[str, tuple[PictureFrame, PictureFrame]]:
    """Frames of images and masks, without those that cannot be read, which are reported elsewhere."""

    def frames(pair: tuple[Path, Path]) -> tuple[PictureFrame, PictureFrame] | None:
        image, mask = pair
        try:
            return (
                index.recall("images", image, "frame", lambda: frame_of(image, exif)),
                index.recall("masks", mask, "frame", lambda: frame_of(mask, exif)),
            )
        except Exception:  # a decoder may raise anything
            return None

    def known(pair: tuple[Path, Path]) -> tuple[PictureFrame, PictureFrame] | None:
        image, mask = index.known("images", pair[0], "frame"), index.known("masks", pair[1], "frame")
        return None if image is None or mask is None else (image, mask)

    return each_read(frames, files, known)


def _unsafe(orientation: int, against: int, exif: Exif) -> str:
    is_applied = "applied" if exif == "apply" else "ignored"
    return (
        f"its image is {WORDS[orientation]} by EXIF, which is {is_applied}, and its mask probably does not fit: other "
        f"masks ({against}) were not drawn on {DRAWN[exif]}, as their sizes show. dataset.exif={OTHER[exif]} reads all "
        f"images in the other way (`semiseg init --exif {OTHER[exif]}`)"
    )


def _note(counts: tuple[int, int, int, int, int], example: str, exif: Exif) -> str:
    turned, images, proven, against, unproven = counts
    doing = "which is applied" if exif == "apply" else "which is ignored (dataset.exif=ignore)"
    text = f"{turned} of {images} images with masks are turned or mirrored by EXIF, {doing}."
    if proven:
        text += f" The sizes of {proven} prove that masks were drawn on {DRAWN[exif]}."
    if against:
        text += f" The sizes of {against} show that masks were not drawn on {DRAWN[exif]}."
    if unproven:
        text += (
            f" Sizes prove nothing for {unproven} that are half turned, mirrored or square, for example {example}: "
            f"compare it with its mask, and set dataset.exif={OTHER[exif]} if masks were drawn on {DRAWN[OTHER[exif]]}."
        )
    return text
