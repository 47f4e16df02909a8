"""Networks of other runs that a run begins with.

A finished fit replaces one that a recipe would train (``method.baseline``); a stored network replaces the initial
weights of all networks (``init_from``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semiseg.config import build
from semiseg.config.other_networks import config_of, others, place
from semiseg.config.places import with_places
from semiseg.config.stored import Config, completed, settings_that_matter
from semiseg.config.targets import BadTarget, locate
from semiseg.contracts.dataset import ids_sha256
from semiseg.contracts.recipe import ReusedFit
from semiseg.contracts.training import Network
from semiseg.data.class_identity import placeholder_remark, unproven
from semiseg.engine.checkpoint import load_bundle
from semiseg.engine.steps import FILE
from semiseg.errors import UserError, shown
from semiseg.files import copy, file_digest, read_json
from semiseg.models.bundle import fitted_state, restore_heads_and_input
from semiseg.models.weights import load_state, require_finite
from semiseg.runs.differences import (
    CurrentRun,
    Difference,
    data_differences,
    differences_of,
    listed_differences,
    network_differences,
    split_differences,
    training_differences,
)
from semiseg.runs.read import StoredRun, find_run, network_file

BASELINE = "method.baseline"
INITIAL = "init_from"
CLASSIFIER = "classifier."
HEADS = "heads."


@dataclass(frozen=True)
class StoredFit:
    """A finished fit of another run.

    Args:
        given: key and value that name its run, for messages.
        run: run that it belongs to.
        directory: directory of its step.
        stored: content of its ``step.json``.
        current: run that uses it, with the network that it is for.
        role: role of its network in its run; ``None`` for one of that run's own kind.
    """

    given: str
    run: StoredRun
    directory: Path
    stored: dict[str, Any]
    current: CurrentRun
    role: str | None = None

    @property
    def step(self) -> str:
        """Name of its step."""
        return str(self.stored["name"])

    @property
    def files(self) -> list[str]:
        """Names of the files of its networks."""
        return list(dict.fromkeys(["best.pt", "last.pt", *self.snapshots]))

    @property
    def snapshots(self) -> list[str]:
        """Names of its snapshots; equal names where two of a short fit are the same network."""
        return list(self.stored["result"].get("snapshots", []))

    @cached_property
    def remark(self) -> str | None:
        """Differences from the training that this run would do; ``None`` where there are none."""
        found = training_differences(self.run, self.role, self.current)
        return f"{self.given} was trained otherwise: {listed_differences(found)}." if found else None

    def digest(self, select: str) -> str:
        """The sha256 of its best or last network."""
        return file_digest(self.directory / f"{select}.pt")

    def copy_to(self, directory: Path) -> dict[str, Any]:
        """Copy its networks into a step of this run, and return the result of that step.

        Raises:
            UserError: a file is missing or damaged.
        """
        digests = {}
        for name in self.files:
            load_bundle(self.directory / name)  # checks the digest: damage must not be copied
            for suffix in (".sha256", ""):
                copy(self.directory / (name + suffix), directory / (name + suffix))
            digests[name] = file_digest(directory / name)
        result = self.stored["result"]
        return {
            "kind": "taken",
            "run": str(self.run.path.resolve()),
            "step": self.step,
            "method": self.run.settings.get("method.name"),
            "seed": self.run.settings.get("seed"),
            "sha256": digests,
            **{key: result[key] for key in ("completed", "best", "last", "training_seconds")},
            "snapshots": self.snapshots,
        }


def find_fit(wanted: ReusedFit, current: CurrentRun) -> StoredFit:
    """Find a finished fit, and check that this run could have made it.

    Raises:
        UserError: there is no such fit, it has learned other images or classes, has another network, or lacks the
            snapshots.
    """
    run = find_run(BASELINE, wanted.run)
    given = f"{BASELINE}={wanted.run}"
    directory, stored = _finished_step(run, given, wanted)
    bundle = load_bundle(directory / "best.pt")
    current = current.of_network(wanted.role)
    fit = StoredFit(given, run, directory, stored, current, bundle.get("role"))
    differing = [*data_differences(run, current), *_network_differences(bundle["config"], current)]
    if fit.step == wanted.step:
        differing += differences_of(wanted.must_match, run, current)
    if differing:
        whose = "this run" if wanted.role is None else f"method.{wanted.role}"
        raise UserError(
            f"{given}: is no baseline of {whose}: {listed_differences(differing)}. Give "
            f"{wanted.accepted_runs} with the data and the network of {whose}, or set it to null to train one."
        )
    _require_same_images(fit)
    if wanted.snapshots:
        _require_snapshots(fit, wanted)
    if tuple(bundle["classes"]) != current.dataset.info.classes:
        raise UserError(
            f"{given}: its classes are {', '.join(bundle['classes'])}; those of this run are "
            f"{', '.join(current.dataset.info.classes)}."
        )
    return fit


def require_different(fits: Sequence[StoredFit], select: str) -> None:
    """Refuse the same network for two networks that learn from each other.

    Args:
        fits: fits of all networks.
        select: "best" or "last", the network of each fit that is used.

    Raises:
        UserError: two of them are equal.
    """
    seen: dict[str, StoredFit] = {}
    for fit in fits:
        # By content: copies of one run in two folders are the same network too.
        if seen.setdefault(fit.digest(select), fit) is not fit:
            raise UserError(
                f"{fit.given}: both networks of this method would begin as the same one and never correct each "
                f"other. Give a run of the same method, or two of different seeds: {BASELINE}=[RUN_A,RUN_B]."
            )


def _finished_step(run: StoredRun, given: str, wanted: ReusedFit) -> tuple[Path, dict[str, Any]]:
    steps = dict(_steps(run))
    name = wanted.step
    if wanted.supervised and _learns_from_labeled_alone(run):
        # The step of a supervised run has another name; one that has not finished is refused by name below.
        name = next(
            (
                name
                for name, (_, stored) in steps.items()
                if stored["state"] != "done" or stored["result"]["kind"] == "fit"
            ),
            name,
        )
    if name not in steps:
        found = f"has the steps {', '.join(steps)}" if steps else "has not begun a step"
        raise UserError(
            f"{given}: is a run of method={run.settings.get('method.name')} and {found}, none of them such a "
            f"baseline. Give {wanted.accepted_runs}."
        )
    directory, stored = steps[name]
    if stored["state"] != "done":
        raise UserError(
            f"{given}: its fit '{name}' has not finished. Go on with it first: semiseg train run_dir={run.path}"
        )
    if "data" not in stored:
        raise UserError(
            f"{given}: its fit '{name}' does not say from which images it has learned; an earlier version "
            "of semiseg stored it. Train it again."
        )
    return directory, stored


def _learns_from_labeled_alone(run: StoredRun) -> bool:
    """Whether the method of a run needs no unlabeled images, so that its fit is a baseline of others."""
    try:
        return not getattr(locate(str(run.settings.get("method._target_"))), "needs_unlabeled", True)
    except BadTarget:
        return False


def _steps(run: StoredRun) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    for file in sorted((run.path / "stages").glob(f"*/{FILE}")):
        stored = read_json(file)
        yield stored["name"], (file.parent, stored)


def _require_same_images(fit: StoredFit) -> None:
    """Refuse a fit that has learned other labels, or was selected on other validation images."""
    hashes = fit.stored["data"]
    kinds = [
        kind for kind in ("labeled", "val") if hashes[kind] != ids_sha256(getattr(fit.current.split, kind))
    ]
    if kinds:
        differing = split_differences(fit.run, fit.current)
        why = listed_differences(differing) if differing else "the lists of images differ"
        raise UserError(
            f"{fit.given}: its {' and '.join(kinds)} images are others ({why}). Give a run with the images of "
            "this one."
        )


def _require_snapshots(fit: StoredFit, wanted: ReusedFit) -> None:
    kept = fit.run.settings.get("method.snapshots") if fit.snapshots else None
    if kept is None or list(kept) != list(wanted.snapshots):
        fractions = ",".join(f"{each:g}" for each in wanted.snapshots)
        said = f"at {kept} of its training" if kept else "none"
        raise UserError(
            f"{fit.given}: the networks kept on its way are needed at [{fractions}] of its training; it kept "
            f"{said}. Give a run of method=stpp, or of method=supervised with method.snapshots=[...] as here."
        )


@dataclass(frozen=True)
class StoredNetwork:
    """A stored network that the networks of a run begin as.

    Args:
        given: key and value that name it, for messages.
        file: path of the checkpoint.
        sha256: digest of that file.
        same_classes: whether its classes are those of this run, so that its classifier can be used.
        remarks: warnings about it.
        unlike: roles of the networks of the run that have another structure.
    """

    given: str
    file: Path
    sha256: str
    same_classes: bool
    remarks: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()

    def begins(self, role: str | None) -> bool:
        """Whether a network of this role begins as this one, or has another structure."""
        return role not in self.unlike

    def summary(self) -> dict[str, Any]:
        """Values for the summary of a run."""
        return {
            "file": str(self.file.resolve()),
            "sha256": self.sha256,
            "classifier": self.same_classes,
            "remarks": list(self.remarks),
        }

    def identical_start_warning(self, tag: str, other: str) -> str:
        """Say how two networks of a method differ that both begin as this one."""
        return (
            f"{self.given}: networks '{other}' and '{tag}' learn from each other, so that they must not begin "
            f"equal: the classifier of '{tag}' is not that of the file."
        )

    def load(self, network: Network, whole: bool = True) -> Network:
        """Load these weights into a fresh network, and return it; auxiliary heads of the file are left out.

        Args:
            network: network of the same structure.
            whole: whether its classifier is loaded too; ``False`` keeps the random one.

        Raises:
            UserError: the file is missing, damaged, or another one than the run began with.
        """
        values = _read(self.given, self.file, self.sha256)
        stored = fitted_state(values, network)
        state = {key: value for key, value in stored.items() if not key.startswith(HEADS)}
        if not (self.same_classes and whole):
            state = {key: value for key, value in state.items() if not key.startswith(CLASSIFIER)}
            state |= {f"{CLASSIFIER}{key}": value for key, value in network.classifier.state_dict().items()}
        restore_heads_and_input(network, {"convention": values["convention"]})
        load_state(network, state, f"The network of {self.given}", "the network of this run")
        return network


def find_initial(cfg: Config, current: CurrentRun) -> StoredNetwork | None:
    """Find the network that ``init_from`` names, and check it; ``None`` where it names none.

    Args:
        cfg: config of the run.
        current: settings, data and split of the run.

    Raises:
        UserError: there is no such network, it is of another structure, or it has learned from images that this
            run validates or tests on.
    """
    where, sha256 = cfg.get(INITIAL), cfg.get("init_sha256")
    if where is None:
        return None
    given = f"{INITIAL}={where}"
    file = network_file(str(where))
    sha256 = str(sha256 or file_digest(file))
    values = _read(given, file, sha256)
    _require_same_network(given, values["config"], current)
    _require_same_channels(given, values, current)
    same = tuple(values["classes"]) == current.dataset.info.classes
    probed = cfg.get("init_head", "random") != "random"
    # The weights of the classifier where the file's are not used.
    own = "begins as a probe" if probed else "keeps its random weights"
    remarks = [] if same else [f"{given}: the classifier {own}, because classes differ."]
    if same and (names := _unproven_names(file, current)):
        same = False
        remarks.append(
            f"{given}: the classifier {own}: {placeholder_remark(names)}. Where they are, say so: "
            "dataset.placeholder_names=false"
        )
    if same and probed:
        remarks.append(f"{given}: gives the classifier too, in place of init_head.")
    if heads := values.get("heads"):
        remarks.append(f"{given}: its heads are not used: {', '.join(heads)}.")
    if remark := _learned_remark(given, file, current):
        remarks.append(remark)
    unlike = {role: found for role in others(cfg) if (found := _unlike(values["config"], current, role))}
    for role, found in unlike.items():
        remarks.append(
            f"{given}: is no beginning for the network of method.{role}, which has another structure: "
            f"{listed_differences(found)}. That begins with its own weights: "
            f"{place('backbone.weights', cfg, role)}={_weights(cfg, role)}."
        )
    return StoredNetwork(given, file, sha256, same, tuple(remarks), tuple(unlike))


def _read(given: str, file: Path, sha256: str) -> dict[str, Any]:
    values = load_bundle(file)
    if file_digest(file) != sha256:
        raise UserError(
            f"{given}: {file} is another network than this run began with (sha256 {sha256[:12]}). Put it back, or "
            "start a new run."
        )
    if missing := {"state_dict", "convention", "classes", "config"} - values.keys():
        raise UserError(
            f"{given}: {file} holds no network of semiseg, it lacks {', '.join(sorted(missing))}. Give a run, or "
            "one of the .pt files in its stages."
        )
    require_finite(values["state_dict"], f"{given}: {file}")
    return values


def _require_same_network(given: str, other: Mapping[str, Any], current: CurrentRun) -> None:
    if differing := _network_differences(other, current):
        raise UserError(
            f"{given}: has another network: {listed_differences(differing)}. Take its settings here, or its "
            "backbone alone: backbone.weights=FILE."
        )


def _network_differences(other: Mapping[str, Any], current: CurrentRun) -> list[Difference]:
    """Find differences between the structures of a stored network, by its own config, and of the one of a run."""
    network = {part: other[part] for part in ("backbone", "model")}
    return network_differences(settings_that_matter(completed(network)), current)


def _unlike(other: Mapping[str, Any], current: CurrentRun, role: str) -> list[Difference]:
    """Find differences between a stored network and the one that the method of a run describes."""
    return _network_differences(other, current.of_network(role))


def _weights(cfg: Config, role: str) -> str:
    return shown(config_of(cfg, role)["backbone"].get("weights", "none"))


def _unproven_names(file: Path, current: CurrentRun) -> list[str]:
    """Return the made-up names of this run's classes, unless the network has learned from the same dataset."""
    info = current.dataset.info
    if not info.placeholder_names:
        return []
    run = _run_of(file)
    other = {} if run is None else with_places(run.config, run.path)[0].get("dataset") or {}
    return unproven(other, current.config["dataset"], info.classes)


def _run_of(file: Path) -> StoredRun | None:
    """Return the run that a network belongs to; ``None`` where it lies in none."""
    return next((run for folder in file.parents if (run := StoredRun(folder)).has_config), None)


def _require_same_channels(given: str, values: Mapping[str, Any], current: CurrentRun) -> None:
    theirs, ours = len(values["convention"]["mean"]), current.dataset.info.channels
    if theirs != ours:
        raise UserError(
            f"{given}: its network takes images of {theirs} channels; those of this run have {ours}."
        )


def _learned_remark(given: str, file: Path, current: CurrentRun) -> str | None:
    """Say which images of this run the network has learned with labels that this run does not have."""
    learned = _learned(file, current)
    if learned is None:
        return (
            f"{given}: cannot find which images it has learned from; make sure that this run tests on others."
        )
    measured = learned & {*current.split.val, *current.split.test}
    if measured:
        raise UserError(
            f"{given}: has learned from {len(measured)} images that this run measures its result on, for example "
            f"{min(measured)}. Give a network that has not seen them."
        )
    hidden = learned & {*current.split.unlabeled} - {*current.split.labeled}
    if not hidden:
        return None
    return (
        f"{given}: has learned the labels of {len(hidden)} images that are unlabeled in this run, whose result is "
        "not one of so few labels."
    )


def _learned(file: Path, current: CurrentRun) -> set[str] | None:
    """Return the ids of this dataset whose labels a network has learned, in its run or in one that this began with.

    Returns:
        ``None`` where they are not known: there is no run, or its split can't be made again.
    """
    run = _run_of(file)
    if run is None:
        return None
    try:
        began = run.config.get(INITIAL)
        learned = set() if began is None else _learned(network_file(str(began)), current)
        if learned is None or run.settings.get("dataset.name") != current.settings.get("dataset.name"):
            return learned
        split = build.split(run.config, current.dataset)
    except UserError:
        return None
    # Made again from today's files: the split counts only if it is the one that the run has recorded.
    hashes = (run.summary or {}).get("split_sha256") or {}
    return learned | {*split.labeled} if split.sha256["labeled"] == hashes.get("labeled") else None
