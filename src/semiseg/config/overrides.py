"""Overrides as typed on the command line: parsing, groups and their choices."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from semiseg.config.faults import Fault
from semiseg.config.literals import literal, quoted, resolved
from semiseg.config.searchpath import options
from semiseg.declare import declared
from semiseg.errors import listed, nearest
from semiseg.settings import COMPONENTS, PRESETS, RECORDS, RunSettings

GROUPS = (*COMPONENTS, *RECORDS, *PRESETS)
COMMAND_LINE = "command line"
PLACES = (
    "dataset.root",
    "dataset.images",
    "dataset.masks",
    "dataset.unlabeled",
    "split_lists",
    "backbone.weights",
    "method.baseline",
    "init_from",
    "run_dir",
    "sweep_dir",
)
"""Keys of files and folders, whose names may hold characters that mean something in an override."""

QUOTING = """Put a value with special characters in two pairs of quotes: key="'a (b), c'"."""


@dataclass(frozen=True)
class Given:
    """One override.

    Args:
        text: override as typed.
        parsed: override as Hydra parses it.
    """

    text: str
    parsed: Override

    @property
    def key(self) -> str:
        """Dotted key or group, without prefix and package."""
        return str(self.parsed.key_or_group)

    @property
    def is_group(self) -> bool:
        """Whether it chooses an option of a group (Hydra's own groups hold a slash)."""
        return "/" in self.key or (self.key in GROUPS and not self.parsed.is_delete())

    @property
    def is_hydra(self) -> bool:
        """Whether it is about Hydra itself."""
        return bool(self.parsed.is_hydra_override())

    @property
    def choices(self) -> list[str]:
        """Names of the chosen options, over a whole sweep; empty for none."""
        value = self.parsed.value()
        if self.parsed.is_sweep_override():
            return [text for text in self.parsed.sweep_string_iterator() if text not in ("null", "")]
        if isinstance(value, list):
            return [str(each) for each in value]
        return [] if value is None else [str(value)]

    @property
    def value(self) -> Any:
        r"""Value as a config resolves it: ``\${x}`` is the text ``${x}``."""
        return resolved(self.parsed.value())

    @property
    def is_interpolation(self) -> bool:
        """Whether its value is that of other keys."""
        written = self.parsed.value()
        return isinstance(written, str) and "${" in written and self.value == written

    def lenient(self) -> str:
        """Return the override in a form that may add keys, so that the check names unknown ones, not Hydra."""
        settled = self.is_group or self.is_hydra or self.text.startswith(("+", "~"))
        return self.text if settled else f"++{self.text}"


def parse(texts: Sequence[str], sweep: bool = False) -> tuple[list[Given], list[Fault]]:
    """Parse overrides; one that cannot be used becomes a fault and is left out.

    Args:
        texts: overrides as typed.
        sweep: whether a key may have several values.
    """
    parser = OverridesParser.create()
    given: list[Given] = []
    faults = []
    for typed in texts:
        text = _as_named(typed, sweep)
        try:
            found = Given(text, parser.parse_override(text))
        except HydraException as error:
            reason = str(error).splitlines()[0]
            faults.append(
                Fault(text, f"not of the form key=value ({reason}).\n{QUOTING}", source=COMMAND_LINE)
            )
            continue
        fault = _choice_fault(found) or _deletion_fault(found) or _split_fault(found)
        fault = fault or (None if sweep else _sweep_fault(found))
        if fault:
            faults.append(fault)
        elif found.is_group and any(other.is_group and other.key == found.key for other in given):
            faults.append(Fault(text, f"{found.key} is chosen twice.", source=COMMAND_LINE))
        else:
            given.append(found)
    return given, faults


def _as_named(text: str, sweep: bool) -> str:
    """Quote the name of a file or folder that exists as typed, whatever characters it has."""
    key, _, value = text.partition("=")
    name = key.lstrip("+")
    weights = name.startswith("method.") and name.endswith(".backbone.weights")
    if not (name in PLACES or weights or name.startswith("data_roots.")) or (sweep and "," in value):
        return text
    try:
        exists = value not in ("", "null") and Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long for a name, or the home of nobody
        exists = False
    return f"{key}={quoted(literal(value))}" if exists else text


def choice_fault(group: str, choice: str, source: str) -> Fault | None:
    """Return the fault of a name that no option of a group has; ``None`` for the name of an option."""
    known = options(group)
    if choice in known:
        return None
    allowed = f"no such option.\nThere are: {listed(known)}." if known else f"no {group}/*.yaml was found."
    return Fault(group, allowed, choice, nearest(choice, known), source)


def _choice_fault(given: Given) -> Fault | None:
    if not given.is_group or given.is_hydra or given.key.startswith("hydra/"):
        return None
    if given.key not in GROUPS:
        groups = f"no such group.\nThere are: {listed(GROUPS)}."
        return Fault(given.text, groups, near=nearest(given.key, GROUPS), source=COMMAND_LINE)
    if "glob(" in given.text:
        return None
    if given.parsed.is_add() and given.key in PRESETS:
        return Fault(given.text, "leave out the +.", near=given.text.lstrip("+"), source=COMMAND_LINE)
    if not given.choices and given.key not in PRESETS:
        return Fault(given.key, f"choose one of: {listed(options(given.key))}.", None, source=COMMAND_LINE)
    return next(
        (fault for name in given.choices if (fault := choice_fault(given.key, name, COMMAND_LINE))), None
    )


def _deletion_fault(given: Given) -> Fault | None:
    """Refuse ``~method``, which other choices depend on, and ``~seed`` or ``~trainer.batch_size`` of the schema."""
    if given.parsed.is_delete() and given.key in COMPONENTS:
        required = f"has to be given; choose one of: {listed(options(given.key))}."
        return Fault(given.key, required, source=COMMAND_LINE)
    group, _, name = given.key.rpartition(".")
    record = RECORDS.get(group) if group else RunSettings
    if not given.parsed.is_delete() or given.key in GROUPS or record is None or name not in declared(record):
        return None
    return Fault(given.text, "cannot be deleted; give it a value.", source=COMMAND_LINE)


def _split_fault(given: Given) -> Fault | None:
    """Refuse ``split=1_8``, which YAML reads as the number 18."""
    _, _, typed = given.text.partition("=")
    if given.key != "split" or not re.search(r"\d_\d", typed):
        return None
    return Fault("split", "write a share with a slash.", typed, typed.replace("_", "/"), COMMAND_LINE)


def _sweep_fault(given: Given) -> Fault | None:
    if not given.parsed.is_sweep_override():
        return None
    advice = f"several values need -m (one run for each); a list is written {given.key}=[A,B]."
    return Fault(given.text, advice, source=COMMAND_LINE)
