"""The network that all networks of a run begin as (``init_from``), in place of weights of a backbone alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from semiseg.config import build
from semiseg.config.layers import flatten
from semiseg.contracts.training import Network
from semiseg.engine.checkpoint import load_bundle
from semiseg.errors import UserError
from semiseg.files import file_digest
from semiseg.models.build import restore_heads_and_input
from semiseg.models.weights import load_state
from semiseg.runs.directory import RESOLVED, RunDir, network_file
from semiseg.runs.former import Here, differences, listed_differences, open_former

KEY = "init_from"
CLASSIFIER = "classifier."
HEADS = "heads."


@dataclass(frozen=True)
class Initial:
    """A stored network that the networks of a run begin as.

    Args:
        given: the key and the value by which it was named, for messages.
        file: the checkpoint.
        sha256: its digest.
        same_classes: whether its classes are those of this run, so that its classifier is of use.
        remarks: what a person should know about it.
    """

    given: str
    file: Path
    sha256: str
    same_classes: bool
    remarks: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """What a summary says about it."""
        return {
            "file": str(self.file.resolve()),
            "sha256": self.sha256,
            "classifier": self.same_classes,
            "remarks": list(self.remarks),
        }

    def twins(self, tag: str, beside: str) -> str:
        """Say what keeps two networks of a method apart that begin as this one."""
        return (
            f"{self.given}: networks '{beside}' and '{tag}' learn from each other, so that they must not begin as "
            f"twins: the classifier of '{tag}' keeps its random weights."
        )

    def load(self, network: Network, whole: bool = True) -> Network:
        """Give a fresh network these weights, and return it; auxiliary heads of the file are left out.

        Args:
            network: of the same structure.
            whole: False leaves its classifier as it is.

        Raises:
            UserError: the file is missing, damaged, or another one than the run began with.
        """
        values = _read(self.given, self.file, self.sha256)
        state = {key: value for key, value in values["state_dict"].items() if not key.startswith(HEADS)}
        if not (self.same_classes and whole):
            state = {key: value for key, value in state.items() if not key.startswith(CLASSIFIER)}
            state |= {f"{CLASSIFIER}{key}": value for key, value in network.classifier.state_dict().items()}
        restore_heads_and_input(network, {"convention": values["convention"]})
        load_state(network, state, f"The network of {self.given}", "the network of this run")
        return network


def open_initial(cfg: DictConfig, here: Here) -> Initial | None:
    """Look at the network that ``init_from`` names; None where it names none.

    Args:
        cfg: the run's config.
        here: the run's settings, data and split.

    Raises:
        UserError: there is no such network, it is of another structure, or it has learned from images that this
            run validates or tests on.
    """
    if cfg.get(KEY) is None:
        return None
    given = f"{KEY}={cfg.init_from}"
    file = network_file(str(cfg.init_from))
    sha256 = str(cfg.init_sha256 or file_digest(file))
    values = _read(given, file, sha256)
    _require_same_network(given, values["config"], here.settings)
    same = tuple(values["classes"]) == here.dataset.info.classes
    remarks = [] if same else [f"{given}: the classifier keeps its random weights, because classes differ."]
    if heads := values.get("heads"):
        remarks.append(f"{given}: its heads are not used: {', '.join(heads)}.")
    if remark := _learned_remark(given, file, here):
        remarks.append(remark)
    return Initial(given, file, sha256, same, tuple(remarks))


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
    return values


def _require_same_network(given: str, there: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    network = flatten({part: there[part] for part in ("backbone", "model")})
    if differing := differences(network, settings, ("backbone", "model"), but=("backbone.weights",)):
        raise UserError(
            f"{given}: has another network: {listed_differences(differing)}. Take its settings here, or its "
            "backbone alone: backbone.weights=FILE."
        )


def _learned_remark(given: str, file: Path, here: Here) -> str | None:
    """Say which images of this run the network has learned with labels that this run does not have.

    Raises:
        UserError: some of them are for validation or test.
    """
    learned = _learned(file, here)
    if learned is None:
        return (
            f"{given}: cannot tell which images it has learned from; see to it that this run tests on others."
        )
    measured = learned & {*here.split.val, *here.split.test}
    if measured:
        raise UserError(
            f"{given}: has learned from {len(measured)} images that this run measures its result on, for example "
            f"{min(measured)}. Give a network that has not seen them."
        )
    hidden = learned & {*here.split.unlabeled} - {*here.split.labeled}
    if not hidden:
        return None
    return (
        f"{given}: has learned the labels of {len(hidden)} images that are unlabeled in this run, whose result is "
        "not one of so few labels."
    )


def _learned(file: Path, here: Here) -> set[str] | None:
    """Ids of this dataset whose labels a network has learned, itself or as one that it began as.

    Returns:
        None where that cannot be told: there is no run, or its split can't be made again.
    """
    run = next((folder for folder in file.parents if (folder / RESOLVED).is_file()), None)
    if run is None:
        return None
    former = open_former(KEY, str(run))
    try:
        began = former.config.get(KEY)
        learned = set() if began is None else _learned(network_file(str(began)), here)
        if learned is None or former.settings.get("dataset.name") != here.settings.get("dataset.name"):
            return learned
        split = build.split(former.config, here.dataset)
    except UserError:
        return None
    hashes = (RunDir(run).read_summary() or {}).get("split_sha256") or {}
    return learned | {*split.labeled} if split.sha256["labeled"] == hashes.get("labeled") else None
