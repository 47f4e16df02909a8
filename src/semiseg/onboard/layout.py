"""Search for the images and masks of a folder, and for the rule that pairs their names."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from semiseg.data.folder_files import TREE, FolderFiles, NameEnds, find_files
from semiseg.data.image_files import image_files
from semiseg.data.picture_files import BadFileError, read_image
from semiseg.errors import UserError
from semiseg.splits.lists import spread

MASK_WORDS = re.compile(r"mask|label|annot|gt|truth|seg|target|anno", re.IGNORECASE)
MAX_FOLDERS = 40
MAX_SIBLINGS = 12
MAX_ENDINGS = 12
MAX_PAIRS = 6
LOOKED_INTO = 20
SAMPLES = 3
MANY_COLORS = 256


@dataclass(frozen=True)
class Layout:
    """Folders and names of images and masks, as settings of the dataset ``folder``.

    Args:
        images: folder of the images below the dataset's.
        masks: folder of the masks below the dataset's.
        image_suffix: ending of an image's name after its id.
        mask_suffix: ending of a mask's name after its id.
    """

    images: str
    masks: str
    image_suffix: str = ""
    mask_suffix: str = ""

    def find(self, base: Path) -> FolderFiles:
        """Search the files; raises ``UserError`` as ``find_files`` does."""
        ends = NameEnds(suffix=self.image_suffix), NameEnds(suffix=self.mask_suffix)
        return find_files(base, self.images, self.masks, *ends)

    def words(self) -> str:
        """The layout as options of the command."""
        suffixes = {"--image-suffix": self.image_suffix, "--mask-suffix": self.mask_suffix}
        more = "".join(f" {option}={suffix}" for option, suffix in suffixes.items() if suffix)
        return f"--images {self.images} --masks {self.masks}{more}"


@dataclass(frozen=True)
class KnownLayout:
    """Known settings of a layout, under the names of ``Layout``; ``None`` is to be found."""

    images: str | None = None
    masks: str | None = None
    image_suffix: str | None = None
    mask_suffix: str | None = None

    def admits(self, layout: Layout) -> bool:
        """Whether a layout has the known settings."""
        known = {key: value for key, value in asdict(self).items() if value is not None}
        return asdict(layout) | known == asdict(layout)


class _Candidate(NamedTuple):
    layout: Layout
    pairs: int
    images: int
    samples: tuple[tuple[Path, Path], ...]


def find_layout(base: Path, given: KnownLayout) -> tuple[Layout, list[Layout]]:
    """Find the layout that pairs the most images with files that look like masks.

    Args:
        base: folder of the dataset.
        given: known settings of the layout.

    Returns:
        The layout, and others that pair as many of the same images with other such files.

    Raises:
        UserError: there is no image, or none with a mask.
    """
    files = {path.relative_to(base).as_posix(): path for path in image_files(base)}
    if not files:
        raise UserError(f"no images in {base}: expected files such as a.jpg and b.png. Expected:\n{TREE}")
    found = list(_candidates(files, given))
    if not found:
        raise UserError(_no_pairs(base, list(files), given))
    likely = sorted(found, key=lambda each: _order(each, True))[:LOOKED_INTO]
    ranked = sorted(likely, key=lambda each: _order(each, _masks_look_so(each)))
    best = ranked[0]
    others = [each for each in ranked[1:] if each.pairs == best.pairs and _masks_look_so(each)]
    return best.layout, [each.layout for each in others if _images_of(each) == _images_of(best)]


def _images_of(candidate: _Candidate) -> tuple[str, str]:
    return candidate.layout.images, candidate.layout.image_suffix


def _order(candidate: _Candidate, looks_so: bool) -> tuple[object, ...]:
    layout = candidate.layout
    named_so = bool(MASK_WORDS.search(f"{layout.masks}{layout.mask_suffix}"))
    wrongly = bool(MASK_WORDS.search(f"{layout.images}{layout.image_suffix}"))
    settings = (layout.images, layout.masks, layout.image_suffix, layout.mask_suffix)
    return (
        not looks_so,
        -candidate.pairs,
        wrongly - named_so,
        -candidate.images,
        bool(layout.image_suffix) + bool(layout.mask_suffix),
        layout.images.count("*"),
        sum(map(len, settings)),
        settings,
    )


class _Names:
    """Names of the files below patterns of folders, and their endings, each computed once."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        self._named: dict[tuple[str, bool], dict[str, str]] = {}
        self._heads: dict[tuple[str, bool], dict[str, list[str]]] = {}

    def named(self, pattern: str, only_png: bool = False) -> dict[str, str]:
        """Files by name without extension, as ``find_files`` names them; of two of a name the one that is no PNG."""
        key = pattern, only_png
        if key not in self._named:
            self._named[key] = _named([file for file in self.files if _is_png(file) or not only_png], pattern)
        return self._named[key]

    def heads(self, pattern: str, only_png: bool = False) -> dict[str, list[str]]:
        """Endings of the names by their beginnings, see ``_heads``."""
        key = pattern, only_png
        if key not in self._heads:
            self._heads[key] = _heads(self.named(pattern, only_png))
        return self._heads[key]

    def suffixes(self, images: str, masks: str) -> list[tuple[str, str]]:
        """Pairs of endings without which names of images equal names of masks, the most frequent first."""
        same = images == masks
        shown, masked = self.named(images), self.named(masks, same)
        image_heads, mask_heads = self.heads(images), self.heads(masks, same)
        counts: Counter[tuple[str, str]] = Counter()
        for head in image_heads.keys() & mask_heads.keys():
            for first, second in product(image_heads[head], mask_heads[head]):
                if shown[head + first] != masked[head + second]:
                    counts[first, second] += 1
        return [pair for pair, _ in counts.most_common(MAX_PAIRS)]


def _candidates(files: Mapping[str, Path], given: KnownLayout) -> Iterator[_Candidate]:
    names = _Names(files)
    for images, masks in _pattern_pairs(files, given):
        for image_suffix, mask_suffix in names.suffixes(images, masks):
            layout = Layout(images, masks, image_suffix, mask_suffix)
            if given.admits(layout):
                yield from _candidate(names, layout)


def _candidate(names: _Names, layout: Layout) -> Iterator[_Candidate]:
    """Count the pairs of a layout; yield nothing without any."""
    masked = {
        stem.removesuffix(layout.mask_suffix): file
        for stem, file in names.named(layout.masks, layout.images == layout.masks).items()
        if stem.endswith(layout.mask_suffix)
    }
    taken = set(masked.values())
    shown = {
        stem.removesuffix(layout.image_suffix): file
        for stem, file in names.named(layout.images).items()
        if file not in taken
    }
    if pairs := sorted(shown.keys() & masked.keys()):
        some = spread(pairs, min(SAMPLES, len(pairs)))
        samples = tuple((names.files[shown[i]], names.files[masked[i]]) for i in some)
        yield _Candidate(layout, len(pairs), len(shown), samples)


def _pattern_pairs(files: Iterable[str], given: KnownLayout) -> Iterator[tuple[str, str]]:
    """Folders of images and of masks that may belong together."""
    folders = {parent for file in files for parent in PurePosixPath(file).parents}
    siblings = Counter(folder.parent for folder in folders)
    # Many neighbors, such as one folder a video, are all alike, and their patterns stand for them.
    few = [folder for folder in folders if siblings[folder.parent] <= MAX_SIBLINGS]
    near = sorted(few, key=lambda folder: (len(folder.parts), folder))[:MAX_FOLDERS]
    plain = [str(folder) for folder in near]
    starred = sorted({each for folder in few for each in _starred(folder)})[:MAX_FOLDERS]
    pairs = [*product(plain, plain), *product(starred, starred), *_longer(near)]
    if given.images is not None or given.masks is not None:
        pairs += product([given.images or each for each in plain], [given.masks or each for each in plain])
    for first, second in dict.fromkeys(pairs):
        if given.images in (None, first) and given.masks in (None, second):
            yield first, second


def _longer(folders: Sequence[PurePosixPath]) -> Iterator[tuple[str, str]]:
    """Patterns for neighbors such as train and trainannot, val and valannot."""
    for shorter, longer in product(folders, folders):
        ending = longer.name.removeprefix(shorter.name)
        if shorter.parent == longer.parent and shorter.name and ending not in ("", longer.name):
            yield str(shorter.parent / "*"), str(shorter.parent / f"*{ending}")


def _starred(folder: PurePosixPath) -> Iterator[str]:
    """Write a ``*`` for one of the folders that a folder lies in."""
    for place in range(len(folder.parts) - 1):
        yield "/".join((*folder.parts[:place], "*", *folder.parts[place + 1 :]))


def _named(files: Iterable[str], pattern: str) -> dict[str, str]:
    lead = "" if pattern == "." else "([^/.][^/]*)".join(map(re.escape, pattern.split("*"))) + "/"
    expression = re.compile(f"{lead}(.+)")
    found: dict[str, str] = {}
    for file in files:
        if match := expression.fullmatch(file.rpartition(".")[0]):
            name = "/".join(match.groups())
            if name not in found or _is_png(found[name]):
                found[name] = file
    return found


def _is_png(file: str) -> bool:
    return file.lower().endswith(".png")


def _heads(names: Iterable[str]) -> dict[str, list[str]]:
    """Endings of names by their beginnings; endings start at a separator and hold a letter, or are empty."""
    splits = [(name[: match.start()], name[match.start() :]) for name in names for match in _ends(name)]
    usual = {ending for ending, _ in Counter(ending for _, ending in splits).most_common(MAX_ENDINGS)}
    heads = defaultdict(list)
    for head, ending in splits:
        if ending in usual:
            heads[head].append(ending)
    for name in names:
        heads[name].append("")
    return heads


def _ends(name: str) -> Iterator[re.Match[str]]:
    start = name.rfind("/") + 2
    for match in re.compile(r"[_. -]").finditer(name, start):
        if re.search("[A-Za-z]", name[match.start() :]):
            yield match


@cache
def _colors(path: Path) -> int | None:
    """Number of colors of a picture; ``None`` for one that cannot be read."""
    try:
        pixels = read_image(path).astype(np.int32)
    except BadFileError:
        return None
    return len(np.unique((pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]))


def _masks_look_so(candidate: _Candidate) -> bool:
    """Whether the masks have few colors, and fewer than their images."""
    counts = [(_colors(image), _colors(mask)) for image, mask in candidate.samples]
    known = [(image, mask) for image, mask in counts if image is not None and mask is not None]
    return bool(known) and all(mask <= MANY_COLORS and mask < image for image, mask in known)


def _no_pairs(base: Path, files: list[str], given: KnownLayout) -> str:
    folders = Counter(str(PurePosixPath(file).parent) for file in files)
    listed = "\n".join(f"  {base / folder}: {count}" for folder, count in folders.most_common(10))
    options = " of the folders and endings given" if given != KnownLayout() else ""
    return (
        f"{len(files)} images, but none has a mask{options}: a mask is a PNG of the same name in another folder, or "
        f"with an ending such as _mask. Images by folder:\n{listed}\nExpected:\n{TREE}\n"
        "Or name the folders: --images DIR --masks DIR."
    )
