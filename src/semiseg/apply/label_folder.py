"""The folder that ``semiseg label`` writes: pictures with masks to correct, and a ranking."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from semiseg.apply.mask_coding import MaskCoding
from semiseg.contracts.dataset import Array, Confidence, DatasetInfo
from semiseg.data.bands import BAND_SUFFIXES
from semiseg.data.picture_files import Exif, read_image
from semiseg.errors import UserError
from semiseg.files import copy, write_csv, write_json, write_text, writes
from semiseg.pictures import PHOTO_EFFORT, color_legend, gray, save
from semiseg.splits.lists import IMAGE_SUFFIXES, shown

IMAGES, MASKS, CONFIDENCE = "images", "masks", "confidence"
RANKING, RECORD, CLASSES, LEGEND = "ranking.csv", "label.json", "classes.txt", "legend.png"
STORE = ".unfinished"
"""Subfolder of labels and confidences until all thresholds are known; it marks work that can be continued."""
ORIGIN = "origin.txt"


@dataclass(frozen=True)
class Rank:
    """Rank of a labeled picture.

    Args:
        name: name of the picture, see ``find_images``.
        confidence: mean confidence of its pixels.
        stability: score of ``Stability``; ``None`` where it was not computed.
        labeled: share of its pixels above the thresholds.
    """

    name: str
    confidence: float
    stability: float | None
    labeled: float


class LabelFolder:
    """A folder of labeled pictures, as ``dataset=folder`` reads it.

    Args:
        folder: path of the folder.
        sources: picture files by name.
        coding: numbers and colors of the masks.
        link: whether the pictures are linked instead of copied.
        exif: whether the labels are those of pictures turned by EXIF.
    """

    def __init__(
        self,
        folder: Path,
        sources: Mapping[str, Path],
        coding: MaskCoding,
        link: bool,
        exif: Exif = "apply",
    ) -> None:
        self.folder = folder
        self.store = folder / STORE
        self._sources = dict(sources)
        self._coding, self._link = coding, link
        self._exif: Exif = exif

    def image(self, name: str) -> Path:
        """File of the picture; one of an extension that no dataset finds becomes a PNG."""
        suffix = self._sources[name].suffix
        found = suffix.lower() in (*IMAGE_SUFFIXES, *BAND_SUFFIXES)
        return self.folder / IMAGES / f"{name}{suffix if found else '.png'}"

    def mask(self, name: str) -> Path:
        """File of the mask."""
        return self.folder / MASKS / f"{name}.png"

    def confidence(self, name: str) -> Path:
        """File of the confidence."""
        return self.folder / CONFIDENCE / f"{name}.png"

    def open(self, force: bool, origin: str) -> None:
        """Make the folder ready; unfinished work of the same origin is continued.

        Args:
            force: whether existing files are replaced.
            origin: hash of the pictures and of everything else that their labels depend on.

        Raises:
            UserError: files would be replaced without ``force``, which may have been corrected by hand; a picture
                would be replaced; unfinished work is of other origin; or the folder cannot be written.
        """
        pictures = {path.resolve() for path in self._sources.values()}
        targets = list(self._targets())
        if own := [path for path in targets if not path.is_symlink() and path.resolve() in pictures]:
            raise UserError(f"{shown(map(str, own), 3)}: is one of IMAGES. Choose another folder by -o.")
        there = [path for path in targets if path.exists() or path.is_symlink()]
        marker = self.store / ORIGIN
        if force and self.store.is_dir() and not _says(marker, origin):
            shutil.rmtree(self.store)
        if self.store.is_dir() and not _says(marker, origin):
            raise UserError(
                f"{self.folder} holds unfinished work of `semiseg label` on other images, or with other settings. "
                "Repeat that command, choose another folder by -o, or replace it with --force."
            )
        if there and not force and not self.store.is_dir():
            names = shown([path.relative_to(self.folder).as_posix() for path in there], 5)
            raise UserError(
                f"{self.folder} holds labels already, perhaps corrected by hand: {names}.\n"
                "Choose another folder by -o, or replace them with --force."
            )
        with writes(self.folder, "Correct that, or choose another folder by -o."):
            self.store.mkdir(parents=True, exist_ok=True)
            write_text(marker, origin)

    def write(self, name: str, label: Array, confidence: Confidence) -> None:
        """Write picture, mask and confidence, each whole or not at all."""
        for path in (self.image(name), self.mask(name), self.confidence(name)):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._bring(self._sources[name], self.image(name))
        save(self.mask(name), self._coding.picture(label))
        save(self.confidence(name), gray(confidence))

    def close(
        self, ranks: Sequence[Rank], written: Sequence[str], info: DatasetInfo, record: Mapping[str, Any]
    ) -> None:
        """Write ranking, names of the classes, legend and record.

        Args:
            ranks: ranks of all pictures, the one to label next first.
            written: names of the pictures that were written.
            info: classes.
            record: origin of the labels.
        """
        write_csv(self.folder / RANKING, self._ranking(ranks, set(written)))
        rows = self._coding.rows(info.classes)
        values = dict(zip(info.classes, self._coding.numbers, strict=True))
        lines = "".join(f"{_cell(name)},{number},{color}\n" for name, number, color in rows)
        write_text(self.folder / CLASSES, lines)
        colors = (*self._coding.colors, self._coding.unlabeled_color)
        texts = (f"{number}  {name}" for name, number, _ in rows)
        save(self.folder / LEGEND, color_legend(dict(zip(texts, colors, strict=True))))
        coding = {"mask_values": values, "mask_value_of_unlabeled": self._coding.unlabeled}
        write_json(self.folder / RECORD, {"version": 1, **record, **coding})
        shutil.rmtree(self.store)

    def abandon(self) -> None:
        """Remove the unfinished folder of pictures of which none could be labeled."""
        shutil.rmtree(self.store)
        with suppress(OSError):  # it holds something else
            self.folder.rmdir()

    def _targets(self) -> Iterator[Path]:
        for name in (RECORD, RANKING, CLASSES, LEGEND):
            yield self.folder / name
        for name in self._sources:
            yield from (self.image(name), self.mask(name), self.confidence(name))

    def _bring(self, source: Path, target: Path) -> None:
        if target.suffix != source.suffix:
            save(target, Image.fromarray(read_image(source, self._exif)), PHOTO_EFFORT)
        elif self._link:
            target.unlink(missing_ok=True)
            os.symlink(source, target)  # noqa: PTH211
        else:
            copy(source, target)

    def _ranking(self, ranks: Sequence[Rank], written: set[str]) -> Iterator[list[Any]]:
        with_stability = any(rank.stability is not None for rank in ranks)
        extra = ["stability"] if with_stability else []
        yield ["rank", "image", "mask", "confidence", *extra, "labeled", "source"]
        for place, rank in enumerate(ranks, start=1):
            here = rank.name in written
            files = [
                path.relative_to(self.folder).as_posix()
                for path in (self.image(rank.name), self.mask(rank.name))
            ]
            stability = [f"{rank.stability:.4f}"] if rank.stability is not None else [""] * with_stability
            scores = [f"{rank.confidence:.4f}", *stability, f"{rank.labeled:.4f}"]
            yield [place, *(files if here else ("", "")), *scores, self._sources[rank.name]]


def _cell(name: str) -> str:
    """A name as a cell of CSV, in quotes where it may be taken for several, or for a comment."""
    if re.search(r"""^[#/'\s]|[",;\t]|\s$""", name):
        return '"' + name.replace('"', '""') + '"'
    return name


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
