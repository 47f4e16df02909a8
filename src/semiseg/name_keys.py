"""One key for names of files: the same letters in another Unicode form, or in upper and lower case, are one name."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from semiseg.errors import UserError

SHOWN_FAULTS = 10


def composed(name: str) -> str:
    """Return a name in the Unicode form NFC, in which each letter with its marks is one character."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def name_key(name: str) -> str:
    """Return the key that names share which differ only in Unicode form or in upper and lower case."""
    return composed(composed(name).casefold())


class NameIndex:
    """Names to find by others: as they are, else in NFC, else in any case.

    Args:
        names: the names that there are.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)

    def find(self, name: str) -> str | None:
        """Return the name that another one means, ``None`` without any.

        Raises:
            UserError: several names match equally well.
        """
        found = self.matches(name)
        if len(found) > 1:
            raise UserError(f"{name} may mean {' or '.join(found)}: {_difference(found)}. Rename one of them")
        return found[0] if found else None

    def matches(self, name: str) -> Sequence[str]:
        """Return all names that match best: the name itself, else those of the same NFC, else of any case."""
        if name in self._names:
            return (name,)
        return self._composed.get(composed(name)) or self._keyed.get(name_key(name)) or ()

    def has(self, name: str) -> bool:
        """Whether a name is there as it is."""
        return name in self._names

    def find_last(self, name: str) -> str | None:
        """Return the only name whose part after the last ``/`` another one means; ``None`` for none or several."""
        last = self._last_parts.matches(name)
        found = [each for part in last for each in self._by_last_part[part]]
        return found[0] if len(found) == 1 else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        return self._by(lambda name: name.rpartition("/")[2])

    @cached_property
    def _last_parts(self) -> "NameIndex":
        return NameIndex(self._by_last_part)

    @cached_property
    def _composed(self) -> dict[str, list[str]]:
        return self._by(composed)

    @cached_property
    def _keyed(self) -> dict[str, list[str]]:
        return self._by(name_key)

    def _by(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = defaultdict(list)
        for name in self._names:
            groups[key(name)].append(name)
        return dict(groups)


def _difference(names: Sequence[str]) -> str:
    if len({composed(name) for name in names}) == 1:
        return "they differ in the Unicode form alone"
    return (
        "they differ in case alone" if len({name_key(name) for name in names}) == 1 else "they mean the same"
    )


def pair_names(wanted: Iterable[str], known: Mapping[str, str], what: str, whose: str) -> dict[str, str]:
    """Match names one to one, such as those of masks with those of images.

    Args:
        wanted: names to match.
        known: ids by the names that they may be called by.
        what: noun for a wanted name, for the message.
        whose: noun for an id, for the message.

    Returns:
        The id of each wanted name that has one.

    Raises:
        UserError: a name matches several ids equally well, or several names match the same id.
    """
    index = NameIndex(known)
    owners: dict[str, str] = {}
    faults = []
    for name in wanted:
        ids = list(dict.fromkeys(known[match] for match in index.matches(name)))
        if len(ids) > 1:
            faults.append(
                f"the {what} {name} may belong to the {whose}s {' and '.join(ids)}: {_difference(ids)}"
            )
        elif ids and (other := owners.setdefault(ids[0], name)) != name:
            faults.append(
                f"the {what}s {other} and {name} both belong to the {whose} {ids[0]}: {_difference((other, name))}"
            )
    if faults:
        raise UserError("\n".join([*faults[:SHOWN_FAULTS], "Rename or remove one of each."]))
    return {name: found for found, name in owners.items()}
