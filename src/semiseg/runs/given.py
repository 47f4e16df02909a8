"""A finished fit of another run, taken in place of one that a recipe would train (``method.baseline``)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.engine.checkpoint import load_bundle
from semiseg.engine.steps import FILE
from semiseg.errors import UserError
from semiseg.files import copy, file_digest, read_json
from semiseg.runs.former import FormerRun, Here, differences, listed_differences, open_former
from semiseg.splits.lists import ids_sha256

KEY = "method.baseline"
SUPERVISED = "semiseg.methods.supervised.Supervised"
SAME = ("dataset", "backbone", "model")
"""Groups that have to agree: what the fit has seen, and what its network is."""
PLACES = ("dataset.root", "backbone.weights")
"""Keys of these groups that may differ."""
TRAINING = ("seed", "backbone.weights", "augment", "optimizer", "schedule", "trainer", "evaluator")
"""Groups that may differ, with a word about it."""
TRAINING_OF_METHOD: Mapping[str, Any] = {
    "method.loss": "ce",
    "method.ohem_threshold": 0.7,
    "method.ohem_min_kept": None,
    "method.bn_group_size": None,
    "method.double_below": 0,
    "method.teacher_augment": "weak",
    "method.ema_decay": None,
    "method.baseline_epochs": None,
    "method.baseline_lr": None,
    "method.weights_a": None,
    "method.weights_b": None,
}
"""So may these keys of methods; with what a method does that has no such key."""
SPLIT = ("split", "split_family", "split_id", "split_lists", "val_subset")


@dataclass(frozen=True)
class GivenFit:
    """Which fit of which run a recipe takes.

    Args:
        run: the run directory.
        step: name of the fit.
        suits: which runs have such a fit, for messages.
        supervised: whether the fit of a run of ``supervised`` serves too.
        alike: keys of the method that have to agree, except with ``supervised``.
        snapshots: fractions of the fit at which it has to have kept its network.
    """

    run: str
    step: str
    suits: str
    supervised: bool
    alike: Sequence[str] = ()
    snapshots: Sequence[float] = ()


@dataclass(frozen=True)
class FormerFit:
    """A finished fit of a former run.

    Args:
        run: the run.
        directory: of the step.
        stored: content of its ``step.json``.
    """

    run: FormerRun
    directory: Path
    stored: dict[str, Any]

    @property
    def files(self) -> list[str]:
        """Its networks."""
        return list(dict.fromkeys(["best.pt", "last.pt", *self.snapshots]))

    @property
    def snapshots(self) -> list[str]:
        """The networks kept on its way; equal names where a short fit kept one of them twice."""
        return list(self.stored["result"].get("snapshots", []))

    def digest(self, select: str) -> str:
        """The sha256 of its best or last network."""
        return file_digest(self.directory / f"{select}.pt")

    def remark(self, here: Here) -> str | None:
        """Say how it was trained otherwise than a fit of this run would be; None where it was not."""
        there = {**TRAINING_OF_METHOD, **self.run.settings}
        if "method.augment" in there:  # what supervised calls it
            there["method.teacher_augment"] = there["method.augment"]
        groups = [*TRAINING, *TRAINING_OF_METHOD]
        now = {**TRAINING_OF_METHOD, **here.settings}
        found = differences(there, now, groups, but=("trainer.threads",))
        return f"{self.run.given} was trained otherwise: {listed_differences(found)}." if found else None

    def taken(self, directory: Path) -> dict[str, Any]:
        """Copy its networks into a step of this run; returns that step's result.

        Raises:
            UserError: a file is missing or damaged.
        """
        digests = {}
        for name in self.files:
            load_bundle(self.directory / name)
            for suffix in (".sha256", ""):
                copy(self.directory / (name + suffix), directory / (name + suffix))
            digests[name] = file_digest(directory / name)
        result = self.stored["result"]
        return {
            "kind": "taken",
            "run": str(self.run.path.resolve()),
            "step": self.stored["name"],
            "method": self.run.settings.get("method.name"),
            "seed": self.run.settings.get("seed"),
            "sha256": digests,
            **{key: result[key] for key in ("completed", "best", "last", "training_seconds")},
            "snapshots": self.snapshots,
        }


def open_fit(given: GivenFit, here: Here) -> FormerFit:
    """Find a finished fit, and see that it is one that this run could have made.

    Raises:
        UserError: there is no such fit, or it has learned other images or classes, or has another network, or
            lacks the snapshots.
    """
    run = open_former(KEY, given.run)
    fit = _find(run, given)
    differing = differences(run.settings, here.settings, SAME, PLACES)
    if fit.stored["name"] == given.step:
        differing += differences(run.settings, here.settings, given.alike)
    if differing:
        raise UserError(
            f"{run.given}: is no baseline of this run: {listed_differences(differing)}. Give {given.suits} with "
            "the data and the network of this run, or set it to null to train one."
        )
    _require_same_images(fit, here)
    if given.snapshots:
        _require_snapshots(fit, given)
    bundle = load_bundle(fit.directory / "best.pt")
    if tuple(bundle["classes"]) != here.dataset.info.classes:
        raise UserError(
            f"{run.given}: its classes are {', '.join(bundle['classes'])}; those of this run are "
            f"{', '.join(here.dataset.info.classes)}."
        )
    return fit


def require_different(fits: Sequence[FormerFit], select: str) -> None:
    """Refuse the same network for two networks that learn from each other.

    Args:
        fits: of all of them.
        select: "best" or "last", which of their networks is handed on.

    Raises:
        UserError: two of them are equal.
    """
    seen: dict[str, FormerFit] = {}
    for fit in fits:
        twin = seen.setdefault(fit.digest(select), fit)
        if twin is not fit:
            raise UserError(
                f"{fit.run.given}: both networks of this method would begin as the same one and never correct each "
                f"other. Give a run of the same method, or two of different seeds: {KEY}=[RUN_A,RUN_B]."
            )


def _find(run: FormerRun, given: GivenFit) -> FormerFit:
    steps = dict(_steps(run))
    plain = given.supervised and run.settings.get("method._target_") == SUPERVISED
    name = "train" if plain else given.step
    if name not in steps:
        found = f"has the steps {', '.join(steps)}" if steps else "has not begun a step"
        raise UserError(
            f"{run.given}: is a run of method={run.settings.get('method.name')} and {found}, none of them such a "
            f"baseline. Give {given.suits}."
        )
    directory, stored = steps[name]
    if stored["state"] != "done":
        raise UserError(
            f"{run.given}: its fit '{name}' has not finished. Go on with it first: "
            f"semiseg train run_dir={run.path}"
        )
    if "data" not in stored:
        raise UserError(
            f"{run.given}: its fit '{name}' does not say from which images it has learned; an earlier version "
            "of semiseg stored it. Train it again."
        )
    return FormerFit(run, directory, stored)


def _steps(run: FormerRun) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    for file in sorted((run.path / "stages").glob(f"*/{FILE}")):
        stored = read_json(file)
        yield stored["name"], (file.parent, stored)


def _require_same_images(fit: FormerFit, here: Here) -> None:
    """Refuse a fit that has learned other labels, or was selected on other validation images."""
    hashes = fit.stored["data"]
    kinds = [kind for kind in ("labeled", "val") if hashes[kind] != ids_sha256(getattr(here.split, kind))]
    if kinds:
        differing = differences(fit.run.settings, here.settings, SPLIT)
        why = listed_differences(differing) if differing else "the lists of images differ"
        raise UserError(
            f"{fit.run.given}: its {' and '.join(kinds)} images are others ({why}). Give a run with the images of "
            "this one."
        )


def _require_snapshots(fit: FormerFit, given: GivenFit) -> None:
    kept = fit.run.settings.get("method.snapshots") if fit.snapshots else None
    if kept is None or list(kept) != list(given.snapshots):
        fractions = ",".join(f"{each:g}" for each in given.snapshots)
        said = f"at {kept} of its training" if kept else "none"
        raise UserError(
            f"{fit.run.given}: the networks kept on its way are needed at [{fractions}] of its training; it kept "
            f"{said}. Give a run of method=stpp, or of method=supervised with method.snapshots=[...] as here."
        )
