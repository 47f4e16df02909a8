"""What a run is compared with another one by, and in what settings two runs differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from semiseg.config import marks
from semiseg.config.stored import Config, completed, settings_that_matter
from semiseg.contracts.dataset import SegDataset, Split
from semiseg.declare import Mark
from semiseg.errors import shown
from semiseg.runs.read import StoredRun

SHOWN = 8
Difference = tuple[str, Any, Any]
"""A key, its value in the other run and its value here; ``None`` where it is not set."""


@dataclass(frozen=True)
class CurrentRun:
    """A run that is to begin with networks of other runs.

    Args:
        config: its config.
        dataset: its images and masks.
        split: its division of them.
    """

    config: Config
    dataset: SegDataset
    split: Split

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted keys and values of all that its result depends on, see ``settings_that_matter``."""
        return settings_that_matter(completed(self.config))


def network_differences(there: Mapping[str, Any], here: CurrentRun) -> list[Difference]:
    """Find what makes a network another one: settings of its groups, whatever files their weights come from."""
    return _differences(
        there, here, lambda key, mark: marks.group_role(key) == "network" and mark.role != "file"
    )


def data_differences(there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find what makes a dataset another one, wherever it lies."""
    return _differences(
        there.settings, here, lambda key, mark: mark.affects == "data" and "." in key and mark.role != "place"
    )


def split_differences(there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find how a dataset is divided otherwise."""
    return differences_of(marks.SPLIT_KEYS, there, here)


def differences_of(keys: Sequence[str], there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find which of some keys, and of the keys below them, differ."""

    def asked(key: str, mark: Mark) -> bool:
        return any(key == each or key.startswith(f"{each}.") for each in keys)

    return _differences(there.settings, here, asked)


def training_differences(there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find how a fit of the other run was trained otherwise than one of this run would be."""

    def concerns(key: str, mark: Mark) -> bool:
        return mark.affects in ("training", "result") and mark.role != "run" and not key.startswith("method.")

    return [*_differences(there.settings, here, concerns), *_first_fit_differences(there, here)]


def listed_differences(differences: Sequence[Difference]) -> str:
    """Write differences as a clause: ``seed 1 there and 0 here``; many are cut."""
    parts = [f"{key} {shown(there)} there and {shown(now)} here" for key, there, now in differences[:SHOWN]]
    more = len(differences) - SHOWN
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _differences(
    there: Mapping[str, Any], here: CurrentRun, concerns: Callable[[str, Mark], bool]
) -> list[Difference]:
    """Find keys that differ; of a group that is another component, its name alone.

    Args:
        there: dotted keys and values of the other run.
        here: this run.
        concerns: says of a key and its mark whether it is looked at.
    """
    now = here.settings
    keys = [
        key
        for key in dict.fromkeys([*there, *now])
        if there.get(key) != now.get(key) and concerns(key, marks.mark_of(key, here.config))
    ]
    found = []
    for key in keys:
        group = key.partition(".")[0]
        names = [name for name in (f"{group}.name", f"{group}._target_") if name in keys]
        found.append(names[0] if names else key)
    return [(key, there.get(key), now.get(key)) for key in dict.fromkeys(found)]


def _first_fit_differences(there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find settings of the fit itself that differ; a method without one does what the default of the other says."""
    other, own = marks.first_fit(there.config), marks.first_fit(here.config)
    defaults = {name: default for name, (_, default) in (*other.items(), *own.items())}
    pairs = [
        (name, *(each.get(name, (default,))[0] for each in (other, own)))
        for name, default in defaults.items()
    ]
    return [(f"method.{name}", before, now) for name, before, now in pairs if before != now]
