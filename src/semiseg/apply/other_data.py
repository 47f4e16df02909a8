"""Images that ``semiseg eval`` measures on: those of the run, or of another partition or dataset."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, Literal, get_args

from semiseg.config.check import Checker
from semiseg.config.compose import Request
from semiseg.config.faults import ConfigFaults, Fault
from semiseg.config.marks import SPLIT_KEYS
from semiseg.config.overrides import COMMAND_LINE, Given, parse
from semiseg.config.prepare import checked
from semiseg.config.stored import plain
from semiseg.contracts.dataset import SegDataset, Split
from semiseg.data.class_identity import placeholder_remark, unproven
from semiseg.data.file_inspection import facts_of
from semiseg.data.fingerprint import differences, of_parts
from semiseg.data.store import stored
from semiseg.errors import UserError, nearest
from semiseg.runs.read import StoredRun
from semiseg.runs.use import FinishedRun

EvaluatedPart = Literal["val", "test", "labeled", "unlabeled"]
PARTS = get_args(EvaluatedPart)
PLACEHOLDERS = "dataset.placeholder_names"

logger = logging.getLogger(__name__)


def images_of(
    run: FinishedRun, part: EvaluatedPart, overrides: Sequence[str], root: str | None
) -> tuple[SegDataset, tuple[str, ...]]:
    """Return a dataset and the ids of a part of it.

    Args:
        run: run whose dataset and split are used where nothing else is chosen.
        part: images of validation or test, or training images with or without labels.
        overrides: config keys of the dataset and the split. All training images of another dataset are labeled,
            unless a split is given too.
        root: folder of the dataset; ``None`` takes that of the config.

    Raises:
        UserError: a key or value is wrong, there is no such data, no image in this part, or nothing proves that the
            classes of another dataset are those of the run.
    """
    config = _changed(run.config, overrides)
    # Where another folder is chosen, nothing needs to be said about that of the run.
    same = config["dataset"].get("root") == run.config["dataset"].get("root")
    dataset, split = dataclasses.replace(run, config=config, remarks=run.remarks if same else ()).data(root)
    _require_proven_classes(run, config, dataset, overrides)
    ids: tuple[str, ...] = getattr(split, part)
    if not ids:
        counts = ", ".join(f"{count} {kind}" for kind, count in split.counts.items())
        raise UserError(
            f"Dataset '{dataset.info.name}' has no {part} images ({counts}). Choose another --part."
        )
    return dataset, ids


def same_data(
    run: FinishedRun, part: EvaluatedPart, dataset: SegDataset, ids: Sequence[str], *, compared: bool
) -> dict[str, Any]:
    """Tell whether images are those that the run began with, and warn where they are not.

    Args:
        run: run that is evaluated.
        part: part of the images.
        dataset: images and masks as they are now.
        ids: ids of the part.
        compared: whether the images should be those of the run, since no others were chosen.

    Returns:
        Plain values: ``sha256`` of ids, sizes and masks, ``as_trained`` (``None`` where that is not known) and
        ``differences``.
    """
    # With the facts that a store of decoded pixels holds, no file is read for this.
    split = Split(labeled=(), unlabeled=(), val=tuple(ids))
    read = stored(dataset, split, filled=False)
    now = of_parts({part: ids}, facts_of(read, ids))
    before = StoredRun(run.path).fingerprint if compared else None
    found = [] if before is None else differences(before, now, [part])
    if found:
        logger.warning(
            "These data are others than those that %s began with: %s. The result is written under another name.",
            run.path,
            "; ".join(found),
        )
    known = None if before is None else not found
    return {"sha256": now.sha256(part), "as_trained": known, "differences": found}


def _changed(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    given, faults = parse(overrides)
    faults += [fault for each in given if (fault := _other_key(each))]
    if faults:
        raise ConfigFaults(faults)
    changed = copy.deepcopy(config)
    if any(each.is_group for each in given):
        other = checked(Request(("split=full", *overrides)), Checker(), settings_only=True)
        return changed | {key: plain(other)[key] for key in ("dataset", *SPLIT_KEYS)}
    if faults := [fault for each in given if (fault := _unknown(each, config))]:
        raise ConfigFaults(faults)
    for each in given:
        group, _, name = each.key.rpartition(".")
        (changed[group] if group else changed)[name] = each.value
    return changed


def _require_proven_classes(
    run: FinishedRun, config: dict[str, Any], dataset: SegDataset, overrides: Sequence[str]
) -> None:
    """Refuse another dataset whose classes are called like those of the run because both names were made up."""
    given, _ = parse(overrides)
    stated = any(each.key == PLACEHOLDERS and each.value is False for each in given)
    known = run.config["dataset"].get("classes") in (None, list(dataset.info.classes))
    if stated or not known or not any(each.is_group for each in given):
        return
    if names := unproven(run.config["dataset"], config["dataset"], dataset.info.classes):
        ways = f"the run {_values(run.config)}, {dataset.info.name} {_values(config)}"
        raise UserError(
            f"dataset '{dataset.info.name}' is another one than that of {run.path}, and {placeholder_remark(names)}. "
            f"Look at their masks ({ways}). Where the classes are the same in this order, say so: "
            f"semiseg eval {run.path} {' '.join(overrides)} {PLACEHOLDERS}=false. Else give the classes of both "
            "datasets true names and train again."
        )


def _values(config: dict[str, Any]) -> str:
    """Write which values in masks the classes have."""
    values = config["dataset"].get("values")
    return "takes the values 0, 1, 2 ..." if values is None else f"takes {', '.join(map(str, values))}"


def _other_key(given: Given) -> Fault | None:
    """Refuse keys that would change more than the images."""
    top = given.key.split(".")[0]
    if top in ("dataset", *SPLIT_KEYS):
        return None
    expected = f"eval takes keys of the data: dataset, dataset.KEY, {', '.join(SPLIT_KEYS)}."
    return Fault(given.text, expected, source=COMMAND_LINE)


def _unknown(given: Given, config: dict[str, Any]) -> Fault | None:
    known = [*SPLIT_KEYS, *(f"dataset.{key}" for key in config["dataset"] if not str(key).startswith("_"))]
    if given.key in known:
        return None
    expected = f"no such key of the run's dataset.\nThere are: {', '.join(known)}."
    return Fault(given.text, expected, near=nearest(given.key, known), source=COMMAND_LINE)
