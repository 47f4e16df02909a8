"""Fingerprint of the data of a run: ids, sizes and masks of each part, to tell later whether they are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from semiseg.contracts.dataset import Split
from semiseg.data.garbage import without_collection
from semiseg.splits.lists import shown

if TYPE_CHECKING:
    from semiseg.data.picture_facts import PictureFacts

FORMAT = 1
DIGITS = 16
"""Digits of each digest of pixels that are kept: 64 bits."""

PARTS = ("labeled", "unlabeled", "val", "test")


class ImageMark(NamedTuple):
    """What is kept of an image.

    Args:
        size: height and width; ``None`` where they are not known.
        mask: digest of the label map; ``None`` where its mask is not read.
        picture: digest of the image.
    """

    size: tuple[int, int] | None = None
    mask: str | None = None
    picture: str | None = None


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of the data of a run.

    Args:
        parts: marks of the images by id, of each part of the split.
        decoder: versions of the libraries that decoded the images.
    """

    parts: Mapping[str, Mapping[str, ImageMark]]
    decoder: str

    def sha256(self, part: str) -> str:
        """Hex SHA-256 over the sorted ids of a part, their sizes and their masks; images as decoded are left out."""
        digest = hashlib.sha256()
        for image_id, mark in sorted(self.parts.get(part, {}).items()):
            digest.update(f"{image_id}\n{mark.size}\n{mark.mask}\n".encode())
        return digest.hexdigest()

    def masks(self) -> dict[str, str]:
        """Digest of the mask of each image that has one, over all parts."""
        images = (each for part in self.parts.values() for each in part.items())
        return {image_id: mark.mask for image_id, mark in images if mark.mask is not None}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, which ``read`` takes."""
        return {
            "format": FORMAT,
            "decoder": self.decoder,
            "sha256": {part: self.sha256(part) for part in self.parts},
            "images": {
                part: {
                    image_id: [list(mark.size) if mark.size else None, mark.mask, mark.picture]
                    for image_id, mark in marks.items()
                }
                for part, marks in self.parts.items()
            },
        }


def fingerprint(split: Split, facts: Mapping[str, PictureFacts]) -> Fingerprint:
    """Return the fingerprint of a split.

    Args:
        split: ids of each part.
        facts: facts about the images, as ``check_files`` reports them.
    """
    return of_parts({part: getattr(split, part) for part in PARTS}, facts)


@without_collection()
def of_parts(parts: Mapping[str, Iterable[str]], facts: Mapping[str, PictureFacts]) -> Fingerprint:
    """Return the fingerprint of some ids by part; an image without facts is known by its id alone."""
    # Imports decoders, which a look at a stored run need not.
    from semiseg.data.store_files import DECODER

    marks = {part: {image_id: _mark(facts.get(image_id)) for image_id in ids} for part, ids in parts.items()}
    return Fingerprint(marks, DECODER)


def read(values: Any) -> Fingerprint | None:
    """Return a stored fingerprint; ``None`` where the values are none, or of a later version."""
    if not isinstance(values, Mapping) or values.get("format") != FORMAT:
        return None
    parts = {
        part: {
            image_id: ImageMark(tuple(size) if size else None, mask, picture)
            for image_id, (size, mask, picture) in images.items()
        }
        for part, images in values["images"].items()
    }
    return Fingerprint(parts, str(values["decoder"]))


def differences(before: Fingerprint, now: Fingerprint, parts: Sequence[str] = PARTS) -> list[str]:
    """Describe how data differ from what they were, one phrase for each part and kind.

    Only what both know is compared: the decoded images where the same libraries decoded them.

    Args:
        before: earlier fingerprint.
        now: later one.
        parts: parts of the split to compare.
    """
    pictures = before.decoder == now.decoder
    return [
        f"{part}: {phrase}"
        for part in parts
        for phrase in _phrases(before.parts.get(part, {}), now.parts.get(part, {}), pictures)
    ]


def other_masks(one: Fingerprint, other: Fingerprint) -> list[str]:
    """Return the ids that both have with a mask of other content, in whatever part."""
    first, second = one.masks(), other.masks()
    return [image_id for image_id, mask in first.items() if second.get(image_id, mask) != mask]


def _mark(facts: PictureFacts | None) -> ImageMark:
    if facts is None:
        return ImageMark()
    return ImageMark(facts.size, facts.mask and facts.mask[:DIGITS], facts.picture[:DIGITS])


def _phrases(before: Mapping[str, ImageMark], now: Mapping[str, ImageMark], pictures: bool) -> Iterator[str]:
    shared = [image_id for image_id in before if image_id in now]

    def unlike(kind: Callable[[ImageMark], Any]) -> list[str]:
        pairs = ((image_id, kind(before[image_id]), kind(now[image_id])) for image_id in shared)
        return [image_id for image_id, old, new in pairs if None not in (old, new) and old != new]

    sizes = unlike(lambda mark: mark.size)
    found = {
        "new": [image_id for image_id in now if image_id not in before],
        "missing": [image_id for image_id in before if image_id not in now],
        "of another size": sizes,
        "with another mask": [each for each in unlike(lambda mark: mark.mask) if each not in sizes],
    }
    if pictures:
        found["with other pixels"] = [each for each in unlike(lambda mark: mark.picture) if each not in sizes]
    for kind, ids in found.items():
        if ids:
            yield f"{len(ids)} {kind} ({shown(ids)})"
