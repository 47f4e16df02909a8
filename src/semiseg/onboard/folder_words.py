"""Words in names of folders and files that say what pictures there are."""

import re
from collections.abc import Iterable
from pathlib import PurePath, PurePosixPath

from semiseg.onboard.layout import Layout


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MASK_WORDS = _words(
    "gt groundtruth ground truth truths mask masks label labels labeled labelled anno annot annots annotation "
    "annotations seg segs segm segmentation segmentations semantic semantics target targets reference manual expert "
    "annotator rater observer labelids labeltrainids trainids matte mattes"
)
IMAGE_WORDS = _words(
    "image images img imgs rgb photo photos picture pictures pic pics jpegimages jpeg jpg jpgs frame frames "
    "leftimg8bit input inputs raw sat"
)
MASK_LESSER = _words(
    "pred preds predict predicted prediction predictions output outputs out result results inference infer pseudo "
    "auto automatic instance instances inst instanceids object objects panoptic vis viz visual visualization "
    "visualizations visualized color colors colour colours colored coloured colorized rgb overlay overlays preview "
    "previews edge edges boundary boundaries border borders contour contours outline outlines skeleton depth depths "
    "disparity disp heat heatmap heatmaps prob probs probability probabilities confidence conf uncertainty entropy "
    "superpixel superpixels slic supervoxel thumb thumbs thumbnail thumbnails aug augs augmented augmentation "
    "augmentations flipped rotated draft drafts old backup backups bak tmp temp copy coarse weak rough scribble "
    "scribbles box boxes bbox bboxes run runs experiment experiments log logs debug checkpoint checkpoints cache "
    "saliency attention cam cams weight weights distance"
)
"""Words of what is made of pictures or of masks, and of what is not meant to be learned from."""

IMAGE_LESSER = (
    MASK_LESSER - {"rgb", "color", "colour", "colored", "coloured", "raw"}
    | MASK_WORDS
    | _words(
        "right nir ir thermal grey gray small resized lowres low crop crops patch patches normal normals"
    )
)

ASIDE = _words(
    "run runs experiment experiments old backup backups bak tmp temp copy aug augs augmented augmentation "
    "augmentations pred preds prediction predictions out output outputs result results debug thumb thumbs thumbnail "
    "thumbnails"
)
"""Words of folders in which even well named images and masks are not what was meant."""

KNOWN_WORDS = MASK_WORDS | IMAGE_WORDS | MASK_LESSER | IMAGE_LESSER

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words_in(text: str) -> set[str]:
    """Words of a name, in lower case: parted at separators, digits and capitals, and whole."""
    whole = re.findall(r"[A-Za-z]+", text)
    return {word.lower() for word in (*WORD.findall(text), *whole)}


def _rank(parts: Iterable[str], good: frozenset[str], lesser: frozenset[str]) -> int:
    found = {word for part in parts for word in words_in(part)}
    if found & lesser:
        return 2 if found & good else 3
    return 0 if found & good else 1


def mask_rank(layout: Layout) -> int:
    """How well a layout's masks are named: 0 as masks, 1 as nothing known, 2 and 3 as something made of them."""
    own = _own_parts(layout.masks, layout.images)
    rank = _rank((*own, layout.mask_prefix, layout.mask_suffix), MASK_WORDS, MASK_LESSER)
    return max(rank, _shared_rank(layout))


def image_rank(layout: Layout) -> int:
    """How well a layout's images are named, as ``mask_rank``."""
    own = _own_parts(layout.images, layout.masks)
    rank = _rank((*own, layout.image_prefix, layout.image_suffix), IMAGE_WORDS, IMAGE_LESSER)
    return max(rank, _shared_rank(layout))


def nearness(layout: Layout) -> int:
    """Number of folders that hold both images and masks."""
    return _shared_parts(layout.images, layout.masks)


def said_to_be_made(folder: PurePath) -> bool:
    """Whether the name of a folder says that its pictures are made of images or of masks."""
    return any(words_in(part) & IMAGE_LESSER for part in folder.parts)


def made_of_others(layout: Layout) -> bool:
    """Whether the names of a layout's masks say that they are made of images or of masks."""
    parts = (*_own_parts(layout.masks, layout.images), layout.mask_prefix, layout.mask_suffix)
    return any(words_in(part) & (MASK_WORDS | MASK_LESSER) for part in parts)


def _own_parts(folder: str, other: str) -> tuple[str, ...]:
    """Parts of a pattern that the other one does not begin with."""
    return PurePosixPath(folder).parts[_shared_parts(folder, other) :]


def _shared_parts(folder: str, other: str) -> int:
    parts, others = PurePosixPath(folder).parts, PurePosixPath(other).parts
    same = 0
    while same < min(len(parts), len(others)) and parts[same] == others[same]:
        same += 1
    return same


def _shared_rank(layout: Layout) -> int:
    shared = PurePosixPath(layout.images).parts[: _shared_parts(layout.images, layout.masks)]
    return 2 if any(words_in(part) & ASIDE for part in shared) else 0
