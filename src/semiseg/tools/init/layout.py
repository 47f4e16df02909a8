"""Where the images of a folder lie, where their masks, and how the names of both belong together."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from semiseg.data.files import BadFileError, image_files, read_image
from semiseg.data.folder_files import TREE, FolderFiles, find_files
from semiseg.data.lists import spread
from semiseg.errors import UserError

MASK_WORDS = re.compile(r"mask|label|annot|gt|truth|seg|target|anno", re.IGNORECASE)
MAX_FOLDERS = 60
MAX_ENDINGS = 12
LOOKED_INTO = 20
SAMPLES = 3
MANY_COLORS = 256


@dataclass(frozen=True)
class Layout:
    """Where images and masks are, as settings of the dataset ``folder``.

    Args:
        images: folder of the images below the dataset's.
        masks: folder of the masks.
        image_suffix: what an image's name has more than its id.
        mask_suffix: what a mask's name has more than its id.
    """

    images: str
    masks: str
    image_suffix: str = ""
    mask_suffix: str = ""

    def find(self, base: Path) -> FolderFiles:
        """Search the files; raises ``UserError`` as ``find_files`` does."""
        return find_files(base, **asdict(self))

    def words(self) -> str:
        """The layout as options of the command."""
        suffixes = {"--image-suffix": self.image_suffix, "--mask-suffix": self.mask_suffix}
        more = "".join(f" {option}={suffix}" for option, suffix in suffixes.items() if suffix)
        return f"--images {self.images} --masks {self.masks}{more}"


class _Candidate(NamedTuple):
    layout: Layout
    pairs: int
    images: int
    samples: tuple[tuple[Path, Path], ...]


def find_layout(
    base: Path, images: str | None = None, masks: str | None = None
) -> tuple[Layout, list[Layout]]:
    """Find the layout that pairs the most images with files that look like masks.

    Args:
        base: the folder.
        images: folder of the images, where it is known.
        masks: folder of the masks, where it is known.

    Returns:
        The layout, and others that pair as many images with such files of their own.

    Raises:
        UserError: there is no image, or none with a mask.
    """
    files = {path.relative_to(base).as_posix(): path for path in image_files(base)}
    if not files:
        raise UserError(f"no images in {base}: expected files such as a.jpg and b.png. Expected:\n{TREE}")
    found = list(_candidates(files, images, masks))
    if not found:
        raise UserError(_no_pairs(base, list(files), images, masks))
    likely = sorted(found, key=lambda each: _order(each, True))[:LOOKED_INTO]
    ranked = sorted(likely, key=lambda each: _order(each, _masks_look_so(each)))
    best = ranked[0]
    others = [each for each in ranked[1:] if each.pairs == best.pairs and _masks_look_so(each)]
    same_images = [each.layout for each in others if each.layout.images == best.layout.images]
    return best.layout, [each for each in same_images if each.masks != best.layout.masks]


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


def _candidates(files: Mapping[str, Path], images: str | None, masks: str | None) -> Iterator[_Candidate]:
    for image_pattern, mask_pattern in _pattern_pairs(files, images, masks):
        same = image_pattern == mask_pattern
        named_masks = _named(files, mask_pattern, (".png",) if same else None)
        named_images = _named(files, image_pattern, None)
        for image_suffix, mask_suffix in _suffixes(named_images, named_masks):
            masked = {
                stem.removesuffix(mask_suffix): file
                for stem, file in named_masks.items()
                if stem.endswith(mask_suffix)
            }
            taken = set(masked.values())
            shown = {
                stem.removesuffix(image_suffix): file
                for stem, file in _named(files, image_pattern, None, taken).items()
            }
            if pairs := sorted(shown.keys() & masked.keys()):
                samples = [
                    (files[shown[i]], files[masked[i]]) for i in spread(pairs, min(SAMPLES, len(pairs)))
                ]
                layout = Layout(image_pattern, mask_pattern, image_suffix, mask_suffix)
                yield _Candidate(layout, len(pairs), len(shown), tuple(samples))


def _pattern_pairs(files: Iterable[str], images: str | None, masks: str | None) -> Iterator[tuple[str, str]]:
    """Folders of images and of masks that may belong together."""
    folders = {parent for file in files for parent in PurePosixPath(file).parents}
    near = sorted(folders, key=lambda folder: (len(folder.parts), folder))[:MAX_FOLDERS]
    plain = [str(folder) for folder in near]
    starred = sorted({each for folder in near for each in _starred(folder)})
    pairs = [*product(plain, plain), *product(starred, starred), *_longer(near)]
    if images is not None or masks is not None:
        pairs += product([images or each for each in plain], [masks or each for each in plain])
    for first, second in dict.fromkeys(pairs):
        if images in (None, first) and masks in (None, second):
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


def _named(
    files: Mapping[str, Path], pattern: str, suffixes: Sequence[str] | None, leave_out: Iterable[str] = ()
) -> dict[str, str]:
    """Files below a pattern by name without extension, as ``find_files`` names them; of two of a name no PNG."""
    lead = "" if pattern == "." else "([^/.][^/]*)".join(map(re.escape, pattern.split("*"))) + "/"
    expression = re.compile(f"{lead}(.+)")
    taken = set(leave_out)
    found: dict[str, str] = {}
    for file in files:
        path = PurePosixPath(file)
        match = expression.fullmatch(str(path.with_suffix("")))
        if match and file not in taken and (suffixes is None or path.suffix.lower() in suffixes):
            name = "/".join(match.groups())
            if name not in found or found[name].lower().endswith(".png"):
                found[name] = file
    return found


def _suffixes(images: Mapping[str, str], masks: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of endings after which names of images and names of masks are equal, the most frequent first."""
    image_heads, mask_heads = _heads(images), _heads(masks)
    counts: Counter[tuple[str, str]] = Counter()
    for head in image_heads.keys() & mask_heads.keys():
        for first, second in product(image_heads[head], mask_heads[head]):
            if images[head + first] != masks[head + second]:
                counts[first, second] += 1
    return [pair for pair, _ in counts.most_common(3)]


def _heads(names: Iterable[str]) -> dict[str, list[str]]:
    """Endings by what comes before them; endings begin at a separator and hold a letter, or are empty."""
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
    """Number of colors of a picture; None where it cannot be read."""
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


def _no_pairs(base: Path, files: list[str], images: str | None, masks: str | None) -> str:
    folders = Counter(str(PurePosixPath(file).parent) for file in files)
    listed = "\n".join(f"  {base / folder}: {count}" for folder, count in folders.most_common(10))
    given = " with the folders given" if images or masks else ""
    return (
        f"{len(files)} images, but none has a mask{given}: a mask is a PNG of the same name in another folder, or with "
        f"an ending such as _mask. Images by folder:\n{listed}\nExpected:\n{TREE}\n"
        "Or name the folders: --images DIR --masks DIR."
    )
