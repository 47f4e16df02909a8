"""Numbers of papers that the preset of a run names, under the key ``published`` of its config."""

from collections.abc import Mapping, Sequence
from typing import Any

from semiseg.report.collect import RunRecord
from semiseg.report.model import Published


def published(runs: Sequence[RunRecord]) -> tuple[Published, ...]:
    """Return what is published for the settings of runs, each number once.

    A row of the list ``published`` says under ``for`` which options of config groups it holds for, under
    ``source`` where it stands, under ``miou`` the percent by split. What does not fit a run is left out.
    """
    found = [
        Published(percent / 100, str(row.get("source", "")), _preset(run))
        for run in runs
        for row in run.config.get("published") or ()
        if (percent := _percent(row, run.config)) is not None
    ]
    return tuple(dict.fromkeys(found))


def _percent(row: Any, config: Mapping[str, Any]) -> float | None:
    if not isinstance(row, Mapping):
        return None
    options = row.get("for") or {}
    if any(name != (config.get(group) or {}).get("name") for group, name in options.items()):
        return None
    by_split = {str(split): percent for split, percent in (row.get("miou") or {}).items()}
    percent = by_split.get(str(config.get("split")))
    return None if percent is None else float(percent)


def _preset(run: RunRecord) -> str:
    """The preset as it was typed; empty for a run that was made from the config of another one."""
    typed = [text.partition("=")[2] for text in run.overrides if text.lstrip("+").startswith("experiments=")]
    return typed[-1] if typed else ""
