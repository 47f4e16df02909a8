"""Names of the pictures below folders, and what is common at their beginnings and endings."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from semiseg.data.folder_files import NameEnds, pictures_in
from semiseg.name_keys import name_key
from semiseg.onboard.folder_words import KNOWN_WORDS, words_in

MAX_ENDS = 12
MANY_NAMES = 20_000
COUNTED_NAMES = 2_000
JOINED_NAMES = 300
USUAL = 0.005
BOUNDARY = re.compile(r"(?<=[^_. -])(?=[_. -])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])|(?<=[a-z])(?=[A-Z])")
"""Place in a name where an ending may begin: before a separator, between letters and digits, before a capital."""


class PictureNames:
    """Pictures below patterns of folders by their names without extension; each pattern is computed once.

    Args:
        base: folder of the dataset.
        files: pictures by their paths relative to it.
    """

    def __init__(self, base: Path, files: Mapping[str, Path]) -> None:
        self.base = base
        self.files = files
        self.named = cache(self._named)
        self.ends = cache(self._ends)
        self.ids = cache(self._ids)
        self.some_ids = cache(self._some_ids)

    def _named(self, pattern: str) -> Mapping[str, Sequence[Path]]:
        """Files by name, see ``find_files``; several where they differ in the extension alone."""
        if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
            return pictures_in(self.base, pattern)
        lead = "" if pattern == "." else "([^/.][^/]*)".join(map(re.escape, pattern.split("*"))) + "/"
        expression = re.compile(f"{lead}(.+)")
        found: dict[str, list[Path]] = defaultdict(list)
        for file, path in self.files.items():
            if match := expression.fullmatch(file.rpartition(".")[0]):
                found["/".join(match.groups())].append(path)
        return found

    def _ends(self, pattern: str) -> Sequence[NameEnds]:
        """Beginnings and endings that many names share, without any first."""
        names = list(self.named(pattern))
        some = drawn_from(names, COUNTED_NAMES)
        counts: Counter[NameEnds] = Counter(ends for name in some for ends in _possible_ends(name))
        least = max(2, USUAL * len(some))
        usual = [
            (ends, count) for ends, count in counts.most_common() if count >= least or _says_something(ends)
        ]
        kinds: dict[tuple[bool, bool], list[NameEnds]] = defaultdict(list)
        for ends, _ in usual:
            kinds[bool(ends.prefix), bool(ends.suffix)].append(ends)
        most = MAX_ENDS if len(names) < MANY_NAMES else MAX_ENDS // 3
        return [NameEnds(), *(ends for each in kinds.values() for ends in each[:most])]

    def _ids(self, pattern: str) -> Mapping[str, Sequence[tuple[NameEnds, str]]]:
        """Names by the keys of the ids that they may have, each with what stands around the id."""
        found: dict[str, list[tuple[NameEnds, str]]] = defaultdict(list)
        ends = self.ends(pattern)
        for name in self.named(pattern):
            for each in ends:
                image_id = each.id_of(name)
                if image_id is not None:
                    found[name_key(image_id)].append((each, name))
        return found

    def _some_ids(self, pattern: str) -> Sequence[tuple[str, NameEnds, str]]:
        """Keys of the ids that some names may have, in the order of what stands around the id."""
        some = drawn_from(list(self.named(pattern)), JOINED_NAMES)
        return [
            (name_key(image_id), ends, name)
            for ends in self.ends(pattern)
            for name in some
            if (image_id := ends.id_of(name)) is not None
        ]


def drawn_from(names: Sequence[str], count: int) -> list[str]:
    """Draw some of many names, the same ones each time; at even distances a pattern in the names would show."""
    return list(names) if len(names) <= count else random.Random(0).sample(names, count)


def _says_something(ends: NameEnds) -> bool:
    """Whether an ending such as _mask or a beginning such as img_ is known, so that a single file may have it."""
    texts = [text for text in (ends.prefix, ends.suffix) if text]
    return all(re.fullmatch("[^0-9]+", text) and words_in(text) <= KNOWN_WORDS for text in texts)


def _possible_ends(name: str) -> Iterator[NameEnds]:
    """All that may stand around the id in a name: parts with a letter, and the whole name of a file in a folder."""
    folder, _, last = name.rpartition("/")
    places = [match.start() for match in BOUNDARY.finditer(last)]
    suffixes = [last[place:] for place in places if re.search("[A-Za-z]", last[place:])]
    prefixes = [
        last[:place] for place in _after_separators(last, places) if re.search("[A-Za-z]", last[:place])
    ]
    if folder:
        yield NameEnds(suffix=f"/{last}")
    yield from (NameEnds(suffix=suffix) for suffix in suffixes)
    yield from (NameEnds(prefix) for prefix in prefixes)
    for prefix in prefixes:
        yield from (NameEnds(prefix, end) for end in suffixes if len(prefix) + len(end) < len(last))


def _after_separators(name: str, places: Iterable[int]) -> Iterator[int]:
    """Places where an id may begin: after the separators."""
    for place in places:
        yield next((at for at in range(place, len(name)) if name[at] not in "_. -"), place)
