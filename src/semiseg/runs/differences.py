"""Differences between the settings of a run and those of another one whose networks it begins with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from semiseg.config import marks
from semiseg.config.other_networks import config_of
from semiseg.config.stored import Config, completed, settings_that_matter
from semiseg.contracts.dataset import SegDataset, Split
from semiseg.declare import Mark
from semiseg.errors import shown
from semiseg.runs.read import StoredRun

SHOWN = 8
Difference = tuple[str, Any, Any]
"""Key, its value in the other run and its value in this run; ``None`` where it is not set."""


@dataclass(frozen=True)
class CurrentRun:
    """A run that is to begin with networks of other runs.

    Args:
        config: config of the run.
        dataset: images and masks.
        split: division of the dataset.
    """

    config: Config
    dataset: SegDataset
    split: Split

    def of_network(self, role: str | None) -> "CurrentRun":
        """Return the run with one of the networks of its method in place of its own kind."""
        return self if role is None else replace(self, config=config_of(completed(self.config), role))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted keys and values of all settings that its result depends on, see ``settings_that_matter``."""
        return settings_that_matter(completed(self.config))


def network_differences(other: Mapping[str, Any], current: CurrentRun) -> list[Difference]:
    """Find differences that change the structure of a network; files of weights and ways to tune them are none."""

    def concerns(key: str, mark: Mark) -> bool:
        return marks.group_role(key) == "network" and mark.role not in ("file", "tuning")

    return _differences(other, current, concerns)


def data_differences(other: StoredRun, current: CurrentRun) -> list[Difference]:
    """Find differences between datasets; their folders are none."""
    return _differences(
        other.settings,
        current,
        lambda key, mark: mark.affects == "data" and "." in key and mark.role != "place",
    )


def split_differences(other: StoredRun, current: CurrentRun) -> list[Difference]:
    """Find differences in the division of a dataset."""
    return differences_of(marks.SPLIT_KEYS, other, current)


def differences_of(keys: Sequence[str], other: StoredRun, current: CurrentRun) -> list[Difference]:
    """Find which of some keys, and of the keys below them, differ."""

    def asked(key: str, mark: Mark) -> bool:
        return any(key == each or key.startswith(f"{each}.") for each in keys)

    return _differences(other.settings, current, asked)


def training_differences(other: StoredRun, role: str | None, current: CurrentRun) -> list[Difference]:
    """Find differences between the training of a network of the other run and the one that this run would do.

    Args:
        other: other run.
        role: role of its network there.
        current: run to compare with, see ``CurrentRun.of_network``.
    """
    theirs = settings_that_matter(config_of(completed(other.config), role))

    def concerns(key: str, mark: Mark) -> bool:
        return mark.affects in ("training", "result") and mark.role != "run" and not key.startswith("method.")

    return [*_differences(theirs, current, concerns), *_first_fit_differences(other, current)]


def listed_differences(differences: Sequence[Difference]) -> str:
    """Write differences as a clause: ``seed 1 there and 0 here``; the first ones of many."""
    parts = [f"{key} {shown(other)} there and {shown(now)} here" for key, other, now in differences[:SHOWN]]
    more = len(differences) - SHOWN
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _differences(
    other: Mapping[str, Any], current: CurrentRun, concerns: Callable[[str, Mark], bool]
) -> list[Difference]:
    """Find keys that differ; of a group that is another component, its name alone.

    Args:
        other: dotted keys and values of the other run.
        current: run to compare with.
        concerns: function of a key and its mark that chooses the keys to compare.
    """
    now = current.settings
    keys = [
        key
        for key in dict.fromkeys([*other, *now])
        if other.get(key) != now.get(key) and concerns(key, marks.mark_of(key, current.config))
    ]
    found = []
    # Another component has other settings too, which would bury its name.
    for key in keys:
        group = key.partition(".")[0]
        names = [name for name in (f"{group}.name", f"{group}._target_") if name in keys]
        found.append(names[0] if names else key)
    return [(key, other.get(key), now.get(key)) for key in dict.fromkeys(found)]


def _first_fit_differences(other: StoredRun, current: CurrentRun) -> list[Difference]:
    """Find differing settings of the fit itself; a method without such a setting has the default of the other one."""
    theirs, own = marks.first_fit(other.config), marks.first_fit(current.config)
    defaults = {name: default for name, (_, default) in (*theirs.items(), *own.items())}
    pairs = [
        (name, *(each.get(name, (default,))[0] for each in (theirs, own)))
        for name, default in defaults.items()
    ]
    return [(f"method.{name}", before, now) for name, before, now in pairs if before != now]
