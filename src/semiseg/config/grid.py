"""The runs of ``-m``: expanding the command line into one request each, and finding every fault of all of them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.override_parser.types import Glob
from omegaconf import OmegaConf

from semiseg.config import schema
from semiseg.config.compose import Request, hydra_at
from semiseg.config.faults import Fault
from semiseg.config.layers import register_local
from semiseg.config.overrides import COMMAND_LINE, Given, parse
from semiseg.config.searchpath import options
from semiseg.errors import listed

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""Hydra's own sweeper, which runs all combinations; others choose values."""


@dataclass(frozen=True)
class Grid:
    """Runs that a command with several values asks for.

    Args:
        given: overrides of the command line.
        presets: overrides with several values of a preset, ``hydra.sweeper.params``.
        combinations: overrides of each run, spelled as Hydra's sweeper spells them, without ``+`` and ``++``.
        closed: whether all runs are known; ``False`` where a sweeper chooses values, as from ``interval(0,1)``.
        faults: faults of the sweep itself, not of its runs.
    """

    given: tuple[Given, ...]
    presets: tuple[Given, ...]
    combinations: tuple[tuple[str, ...], ...]
    closed: bool
    faults: tuple[Fault, ...]

    def requests(self, request: Request) -> list[Request]:
        """Return one request for each run, with the overrides about Hydra, so that all of it is checked."""
        hydra = tuple(each.text for each in self.given if each.is_hydra)
        return [replace(request, overrides=(*hydra, *texts), in_sweep=True) for texts in self.combinations]


def expand(request: Request) -> Grid:
    """Expand a command line with several values.

    Args:
        request: overrides, some of them with several values.
    """
    given, faults = parse(request.overrides, sweep=True)
    if any(each.key == "run_dir" for each in given):
        expected = "-m makes a directory for each run; use sweep_dir."
        faults.append(Fault("run_dir", expected, source=COMMAND_LINE))
        given = [each for each in given if each.key != "run_dir"]
    hydra = _hydra_node(request, given)
    params = OmegaConf.select(hydra, "sweeper.params") or {}
    presets = parse([f"{key}={value}" for key, value in params.items()], sweep=True)[0]
    n_jobs = OmegaConf.select(hydra, "launcher.n_jobs")
    if n_jobs is not None and n_jobs < 1 and hydra.runtime.choices["hydra/launcher"] == "subprocess":
        faults.append(Fault("hydra.launcher.n_jobs", "expected 1 or more runs at a time.", n_jobs))
    used = [each for each in (*presets, *given) if not each.is_hydra]
    values = {each.key: _single(each) for each in used}
    basic = OmegaConf.select(hydra, "sweeper._target_") == BASIC_SWEEPER
    faults += [_no_values(each) for each in used if basic and not values[each.key]]
    return Grid(
        tuple(given),
        tuple(presets),
        tuple(itertools.product(*(texts for texts in values.values() if texts))),
        all(values.values()),
        tuple(faults),
    )


def _hydra_node(request: Request, given: Sequence[Given]) -> Any:
    """Return Hydra's own config under the overrides that all runs share; empty where they cannot be composed."""
    schema.register(typed=False)
    register_local()
    fixed = [each.lenient() for each in given if not each.parsed.is_sweep_override()]
    if not request.primary.is_file():
        return OmegaConf.create()
    with hydra_at(request.primary_dir):
        try:
            return hydra_compose(request.config_name, fixed, return_hydra_config=True).hydra
        except Exception:  # the check of the single configs says what is wrong
            return OmegaConf.create()


def _no_values(given: Given) -> Fault:
    """Return the fault of a key that Hydra's sweeper finds no values for."""
    if isinstance(given.parsed.value(), Glob):
        expected = f"no option has such a name.\nThere are: {listed(options(given.key))}."
    else:
        expected = f"give the values: {given.key}=A,B or {given.key}=range(0,3)."
    return Fault(given.text, expected, source=COMMAND_LINE)


def _single(given: Given) -> list[str]:
    """Return one override for each value; none where a sweeper chooses the values."""
    key = str(given.parsed.get_key_element()).lstrip("+")
    if not given.parsed.is_sweep_override():
        return [key if given.parsed.is_delete() else f"{key}={given.parsed.get_value_element_as_str()}"]
    value: object = given.parsed.value()
    if isinstance(value, Glob):
        return [f"{key}={name}" for name in value.filter(options(given.key))]
    if not given.parsed.is_discrete_sweep():
        return []
    return [f"{key}={text}" for text in given.parsed.sweep_string_iterator()]
