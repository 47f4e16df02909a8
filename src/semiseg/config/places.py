"""Folders and files that a run reads: absolute from its beginning on, so that they mean the same from everywhere.

A run of an earlier version may have stored a relative path. It is relative to the directory where the run began, which
is recorded, or follows from where its own directory lies.
"""

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from semiseg.config.layers import LOCAL, flatten
from semiseg.config.literals import literal, literals
from semiseg.config.marks import mark_of
from semiseg.config.split_keys import imported_below
from semiseg.config.stored import Config, plain, read_config, read_resolved
from semiseg.config.targets import BadTarget, locate
from semiseg.data.image_files import ROOT_VARIABLE
from semiseg.errors import UserError
from semiseg.files import read_json
from semiseg.runs.read import RESOLVED

ROOT = "dataset.root"
LISTS = "split_lists"
OTHER_RUNS = ("method.baseline", "init_from")


@dataclass
class Places:
    """Paths of a config that another value is to be taken for.

    Args:
        values: dotted keys and their new values.
        remarks: sentences about data that are read from elsewhere than the config says.
    """

    values: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def settle_places(cfg: DictConfig) -> None:
    """Make the paths of a new run absolute; the config is changed in place."""
    values = plain(cfg)
    found = {key: _absolute(value, Path.cwd(), key) for key, value in _paths(values)}
    if (root := _named_root(values)) is not None:
        found[ROOT] = str(root)
    _update(cfg, found)
    for name, place in (values.get("data_roots") or {}).items():
        cfg.data_roots[name] = literal(_absolute(place, Path.cwd(), ROOT))


def restore_places(cfg: DictConfig, run: Path, typed: Mapping[str, Any]) -> list[str]:
    """Give the composed config of a stored run the paths that it began with; the config is changed in place.

    Args:
        cfg: config composed from ``run.yaml``.
        run: directory of the run.
        typed: dotted keys and values of the command line, which are kept.

    Returns:
        Sentences about data that are read from elsewhere than the run says.
    """
    found = stored_places(plain(cfg), run, typed)
    _update(cfg, {key: value for key, value in found.values.items() if key not in typed})
    return [] if ROOT in typed else found.remarks


def with_places(config: Config, run: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the plain config of a stored run with the paths that it began with, and sentences about other ones."""
    found = stored_places(config, run, {})
    changed = deepcopy(dict(config))
    for key, value in found.values.items():
        *groups, name = key.split(".")
        node = changed
        for group in groups:
            node = node[group]
        node[name] = value
    return changed, found.remarks


def stored_places(config: Config, run: Path, typed: Mapping[str, Any]) -> Places:
    """Find the absolute paths of a stored run, and where its dataset has been moved to on purpose.

    Args:
        config: plain config of the run.
        run: directory of the run.
        typed: dotted keys and values of the command line.
    """
    before = _as_begun(run)
    began = began_in(run, before)
    base = began or Path.cwd()
    found = Places({key: _absolute(value, base, key) for key, value in _paths(config)})
    root = config["dataset"].get("root") if isinstance(config.get("dataset"), Mapping) else None
    if root is not None:
        _restore_root(found, config, str(root), began, _moved(config, before, began, typed))
    elif (named := _named_root(config)) is not None:
        found.values[ROOT] = str(named)
    if config.get(LISTS) is None and began is not None and (lists := imported_below(config, began)):
        found.values[LISTS] = str(lists)
    return found


def began_in(run: Path, before: Config) -> Path | None:
    """Return the directory that a run was begun in; ``None`` where nothing tells it.

    Args:
        run: directory of the run.
        before: config as the run began, where ``run_dir`` may be relative to that directory.
    """
    try:
        recorded = read_json(run / "env.json").get("directory")
    except (OSError, ValueError, AttributeError):
        recorded = None
    if recorded is not None:
        return Path(str(recorded))
    given = before.get("run_dir")
    parts = Path(str(given)).parts if given else ()
    place = Path(os.path.abspath(run))  # noqa: PTH100 - a link in the path may have been part of run_dir
    if not parts or Path(*parts).is_absolute() or ".." in parts or place.parts[-len(parts) :] != parts:
        return None
    return Path(*place.parts[: -len(parts)])


def _restore_root(
    found: Places, config: Config, root: str, began: Path | None, moved: tuple[Path, str] | None
) -> None:
    """Find the folder of the dataset: as moved by ``data_roots``, else as the run had it."""
    name = str(config["dataset"].get("name"))
    place = found.values.get(ROOT, root)
    if moved is not None:
        found.values[ROOT] = str(moved[0])
        if str(moved[0]) != place:
            found.remarks.append(f"Dataset {name} is read from {moved[0]} ({moved[1]}), not from {place}.")
        return
    if began is None and not Path(root).expanduser().is_absolute():
        found.remarks.append(
            f"The run does not record where it began: its {ROOT}={root} is taken from the current directory, which "
            f"gives {place}."
        )
    named = _named_root(config, anew=True)
    if named is not None and not Path(place).is_dir():
        found.values[ROOT] = str(named)
        found.remarks.append(f"Dataset {name} is read from {named} ({ROOT_VARIABLE}): there is no {place}.")


def _moved(
    config: Config, before: Config, began: Path | None, typed: Mapping[str, Any]
) -> tuple[Path, str] | None:
    """Return the folder that ``data_roots`` gives a dataset, and its source, unless the run began with the same."""
    name = str(config["dataset"].get("name"))
    given, source = typed.get(f"data_roots.{name}"), "the command line"
    if given is None and Path(LOCAL).is_file():
        try:
            given, source = read_config(Path(LOCAL), "data_roots").get(name), LOCAL
        except UserError:  # of a broken file that nothing else here needs
            given = None
    if given is None:
        return None
    now = _absolute(given, Path.cwd(), ROOT)
    entry = (before.get("data_roots") or {}).get(name)
    known = entry is not None and _absolute(entry, began or Path.cwd(), ROOT) == now
    return None if known else (Path(now), f"data_roots.{name} of {source}")


def _as_begun(run: Path) -> dict[str, Any]:
    """Return the config that a run stored when it began; empty where that cannot be read."""
    try:
        return read_resolved(run / RESOLVED)
    except UserError:
        return {}


def _paths(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of all settings that are paths."""
    for key, value in flatten(config).items():
        role = None if value is None else mark_of(key, config).role
        if role == "file" or (value is not None and key in (ROOT, LISTS, *OTHER_RUNS)):
            yield key, value


def _absolute(value: Any, base: Path, key: str) -> Any:
    """Return a path as an absolute one; the name of published weights, or of what is not there, is kept."""
    if isinstance(value, list | tuple):
        return [_absolute(each, base, key) for each in value]
    path = base / Path(str(value)).expanduser()
    there = path.exists() if key in OTHER_RUNS else path.is_file()
    if not (key in (ROOT, LISTS) or there):
        return value
    # Without following links: a link stands for what it will point to.
    return os.path.abspath(path)  # noqa: PTH100


def _named_root(config: Config, *, anew: bool = False) -> Path | None:
    """Return the folder that SEMISEG_DATA gives the dataset where no root is given; ``anew`` looks in any case."""
    node, base = config.get("dataset"), os.environ.get(ROOT_VARIABLE)
    if not base or not isinstance(node, Mapping) or "_target_" not in node:
        return None
    if (node.get("root") is not None and not anew) or mark_of(ROOT, config).role != "place":
        return None
    try:
        others = getattr(locate(str(node["_target_"])), "folder_names", ())
    except BadTarget:
        others = ()
    folder = Path(base).expanduser()
    places = [folder / str(name) for name in (node.get("name"), *others)]
    found = next((place for place in places if place.is_dir()), None)
    return None if found is None else Path(os.path.abspath(found))  # noqa: PTH100


def _update(cfg: DictConfig, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        OmegaConf.update(cfg, key, literals(value), force_add=True)
