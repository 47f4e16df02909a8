"""What a run is compared with another one by, and in what settings two runs differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from semiseg.config import marks
from semiseg.config.stored import Config, completed, settings_that_matter
from semiseg.contracts.dataset import SegDataset, Split
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
    return _differences(there, here.settings, _network_keys([*there, *here.settings], here))


def data_differences(there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find what makes a dataset another one, wherever it lies."""
    keys = marks.keys_of([*there.settings, *here.settings], here.config, affecting=["data"])
    found = [key for key in keys if "." in key and not marks.has_role(key, here.config, "place")]
    return _differences(there.settings, here.settings, found)


def split_differences(there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find how a dataset is divided otherwise."""
    return _differences(there.settings, here.settings, marks.split_keys())


def differences_of(keys: Sequence[str], there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find which of some keys differ."""
    return _differences(there.settings, here.settings, keys)


def training_differences(there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find how a fit of the other run was trained otherwise than one of this run would be."""
    keys = [
        key
        for key in marks.keys_of(
            [*there.settings, *here.settings], here.config, affecting=["training", "result"]
        )
        if not key.startswith("method.") and not marks.has_role(key, here.config, "run")
    ]
    return [*_differences(there.settings, here.settings, keys), *_first_fit_differences(there, here)]


def listed_differences(differences: Sequence[Difference]) -> str:
    """Write differences as a clause: ``seed 1 there and 0 here``; many are cut."""
    parts = [f"{key} {shown(there)} there and {shown(now)} here" for key, there, now in differences[:SHOWN]]
    more = len(differences) - SHOWN
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _network_keys(keys: Sequence[str], here: CurrentRun) -> list[str]:
    groups = marks.groups_of("network")
    return [
        key for key in keys if key.split(".")[0] in groups and not marks.has_role(key, here.config, "file")
    ]


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], keys: Sequence[str]) -> list[Difference]:
    """Find those of some keys that differ; of a group that is another component, its name alone."""
    differing = [key for key in dict.fromkeys(keys) if there.get(key) != here.get(key)]
    found = []
    for key in differing:
        group = key.partition(".")[0]
        names = [name for name in (f"{group}.name", f"{group}._target_") if name in differing]
        found.append(names[0] if names else key)
    return [(key, there.get(key), here.get(key)) for key in dict.fromkeys(found)]


def _first_fit_differences(there: StoredRun, here: CurrentRun) -> list[Difference]:
    """Find settings of the fit itself that differ; a method without one does what the default of the other says."""
    other, own = marks.first_fit(there.config), marks.first_fit(here.config)
    defaults = {name: default for name, (_, default) in (*other.items(), *own.items())}
    pairs = [
        (name, *(each.get(name, (default,))[0] for each in (other, own)))
        for name, default in defaults.items()
    ]
    return [(f"method.{name}", before, now) for name, before, now in pairs if before != now]
