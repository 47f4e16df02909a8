"""Going on with a run: its stored settings plus what was typed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from semiseg.config.compose import Draft, Request, compose, draft, typed
from semiseg.config.environment import set_environment
from semiseg.config.layers import Layer
from semiseg.config.marks import mark_of
from semiseg.config.overrides import Given, parse
from semiseg.config.places import restore_places, settle_places
from semiseg.config.stored import STORED, differing_keys, plain, stored_run
from semiseg.errors import UserError, nearest, shown
from semiseg.files import read_json
from semiseg.settings import PRESETS

SWEEP_INDEX = "sweep.json"
DEPTH = 3
SHOWN_RUNS = 3

Difference = tuple[str, Any, Any]


def for_resume(request: Request) -> Request:
    """Return a request for the stored config of the run in ``run_dir``, plus what was typed.

    Raises:
        UserError: nothing but ``run_dir`` was given, and no run is there; or options were chosen that differ from
            those of the run.
    """
    given, faults = parse(request.overrides)
    places = [each.value for each in given if each.key == "run_dir" and not each.is_interpolation]
    if faults or not places or request.config_dir is not None:
        return request
    run = stored_run(places[-1])
    if run is None:
        path = None if places[-1] is None else Path(str(places[-1])).expanduser()
        if path is not None and all(_goes_on(each) for each in given) and not _is_job(path):
            raise no_run(path)
        return request
    kept = replace(request, config_dir=run, config_name=STORED)
    if not any(each.is_group for each in given):
        return kept
    return _with_options(request, given, kept)


def stored_config(run: Path, data_roots: Mapping[str, str]) -> DictConfig:
    """Compose the config that a run has stored, with the paths that it began with.

    Args:
        run: directory of the run.
        data_roots: folders of datasets that were chosen now, by name.
    """
    cfg = compose(Request(config_dir=run, config_name=STORED))
    restore_places(cfg, run, {f"data_roots.{name}": place for name, place in data_roots.items()})
    return cfg


def other_settings(run: Path, differing: Sequence[Difference]) -> UserError:
    """Return the error of settings that a run may not go on with."""
    lines = "\n".join(f"  {key}: {shown(old)} there, {shown(new)} now" for key, old, new in differing)
    moved = ""
    if any(key == "dataset.root" for key, *_ in differing):
        moved = f"Data that have moved: say so by data_roots in local.yaml, or data_roots.NAME=PATH run_dir={run}.\n"
    return UserError(
        f"{run} holds a run with other settings:\n{lines}\n{moved}"
        f"Go on with the stored settings by `semiseg train run_dir={run}` alone, or choose another run_dir."
    )


def no_run(path: Path) -> UserError:
    """Return the error that there is no run to go on with; it names the nearest ones."""
    inside = _runs_below(path) if path.is_dir() else []
    if inside:
        head = (
            f"it holds {len(inside)} runs: {_some(inside)}" if len(inside) > 1 else f"its run is {inside[0]}"
        )
        found = f"{path} is no run; {head}."
    elif (above := next((each for each in path.parents if stored_run(each)), None)) is not None:
        found = f"{path} is no run, but lies in one: run_dir={above}."
    elif (path / "overrides.yaml").is_file():
        found = (
            f"The run in {path} was ended before its settings were stored. Start it again with the options in "
            f"{path / 'overrides.yaml'}."
        )
    else:
        near = _nearest_run(path)
        found = f"{path} holds no run.{f' Did you mean {near}?' if near else ''}"
    return UserError(
        f"{found} `semiseg train run_dir=RUN` goes on with a run. For a new one in this place, also say what to train, "
        "for example method=cps; one with all defaults needs no run_dir."
    )


def _goes_on(given: Given) -> bool:
    """Whether an override says nothing of what a new run would train."""
    mark = mark_of(given.key, {})
    return not given.is_group and (
        given.key == "run_dir" or (mark.affects == "nothing" and mark.role is None)
    )


def _with_options(request: Request, given: Sequence[Given], kept: Request) -> Request:
    """Compare a run with chosen options and typed keys alone; whatever else its options hold is the run's own."""
    found = draft(request)
    if found.cfg is None or found.faults:
        return request  # the check names the faults
    run = kept.config_dir
    assert run is not None
    set_environment(found.cfg)  # before the classes are imported, and torch with them
    now = typed(found)
    settle_places(now)
    differing = differing_keys(stored_config(run, plain(now)["data_roots"]), now)
    if not differing:
        return request
    if touched := [each for each in differing if _is_chosen(each[0], given, found)]:
        raise other_settings(run, touched)
    harmless = tuple(each.text for each in given if not each.is_group)
    return replace(kept, overrides=harmless)


def _is_chosen(key: str, given: Sequence[Given], found: Draft) -> bool:
    """Whether a key belongs to a chosen option, or is set by a preset or the command line."""
    groups = [each.key for each in given if each.is_group and each.key not in PRESETS]
    layers = [found.layers[0], *(layer for layer in found.layers[1:] if _is_preset(layer))]
    return key.partition(".")[0] in groups or any(layer.sets(key) for layer in layers)


def _is_preset(layer: Layer) -> bool:
    return Path(layer.name).parent.name in PRESETS


def _is_job(path: Path) -> bool:
    """Whether a directory belongs to a job of a sweep, which may be one of defaults alone."""
    try:
        return path.name in read_json(path.parent / SWEEP_INDEX)["jobs"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _runs_below(folder: Path, depth: int = DEPTH) -> list[Path]:
    """Return the directories of runs below a folder, the newest last."""
    if stored_run(folder):
        return [folder]
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
    return [run for path in inside if depth for run in _runs_below(path, depth - 1)]


def _nearest_run(path: Path) -> Path | None:
    """Return the run whose path is nearest to one that holds none."""
    above = next((each for each in path.parents if each.is_dir()), Path())
    runs = {str(run.relative_to(above)): run for run in _runs_below(above)}
    near = nearest(str(path.relative_to(above)), runs)
    return runs[near] if near else None


def _some(runs: Sequence[Path]) -> str:
    more = len(runs) - SHOWN_RUNS
    return ", ".join(map(str, runs[-SHOWN_RUNS:])) + (f" and {more} more" if more > 0 else "")
