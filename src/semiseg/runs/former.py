"""Earlier runs that a run begins with: how they are found, and what of them has to agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from semiseg.config.compose import settings_that_matter
from semiseg.config.faults import nearest, shown
from semiseg.data.dataset import SegDataset
from semiseg.errors import UserError
from semiseg.runs.directory import RESOLVED
from semiseg.splits.split import Split

SHOWN = 8
Difference = tuple[str, Any, Any]
"""A key, its value in the former run and its value here; None where it is not set."""


@dataclass(frozen=True)
class Here:
    """What a former run is compared with.

    Args:
        settings: dotted keys and values of this run, see ``settings_that_matter``.
        dataset: its images and masks.
        split: its division of them.
    """

    settings: Mapping[str, Any]
    dataset: SegDataset
    split: Split


@dataclass(frozen=True)
class FormerRun:
    """A run directory, read for what its networks were made with.

    Args:
        given: the key and the value by which it was named, for messages.
        path: the directory.
        config: its resolved config.
        settings: the same, as dotted keys and values.
    """

    given: str
    path: Path
    config: DictConfig
    settings: Mapping[str, Any]


def open_former(key: str, value: str) -> FormerRun:
    """Open the directory of a run, finished or not.

    Args:
        key: the key that names it, such as ``method.baseline``.
        value: the directory.

    Raises:
        UserError: there is no run.
    """
    path = Path(value).expanduser()
    if not (path / RESOLVED).is_file():
        raise UserError(
            f"{key}={value}: no run is there ({RESOLVED} is missing). Give the directory that `semiseg train` "
            f"printed.{_hint(path)}"
        )
    config = OmegaConf.load(path / RESOLVED)
    assert isinstance(config, DictConfig)
    return FormerRun(f"{key}={value}", path, config, settings_that_matter(config))


def _hint(path: Path) -> str:
    """Name the run beside a missing one that is called most alike."""
    runs = [found.parent.name for found in path.parent.glob(f"*/{RESOLVED}")] if path.parent.is_dir() else []
    near = nearest(path.name, runs)
    return f" Did you mean {path.parent / near}?" if near else ""


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], groups: Sequence[str], but: Sequence[str] = ()
) -> list[Difference]:
    """Find the keys of some groups that differ; of a group that is another component, its name alone.

    Args:
        there: dotted keys and values of a former run.
        here: those of this run.
        groups: beginnings of keys, or whole keys.
        but: keys left out.
    """
    keys = dict.fromkeys([*there, *here])
    differing = [key for key in keys if key not in but and there.get(key) != here.get(key)]
    found: list[str] = []
    for group in groups:
        inside = [key for key in differing if key == group or key.startswith(f"{group}.")]
        named = [key for key in (f"{group}.name", f"{group}._target_") if key in inside]
        found += named[:1] or inside
    return [(key, there.get(key), here.get(key)) for key in found]


def listed_differences(differences: Sequence[Difference]) -> str:
    """Write differences as a clause: ``seed 1 there and 0 here``; many are cut."""
    parts = [f"{key} {shown(there)} there and {shown(now)} here" for key, there, now in differences[:SHOWN]]
    more = len(differences) - SHOWN
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")
