"""Finished runs in use: their data, their networks, and the settings by which these are applied."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.config import build, searchpath
from semiseg.config.check_keys import check_evaluator
from semiseg.config.faults import ConfigFaults
from semiseg.config.places import with_places
from semiseg.config.stored import read_config
from semiseg.contracts.dataset import SegDataset, Split
from semiseg.data.bands import BAND_SUFFIXES
from semiseg.data.file_faults import check_files
from semiseg.errors import UserError
from semiseg.runs.read import RESOLVED, StoredRun, unfinished
from semiseg.settings import EvaluatorSettings
from semiseg.splits.lists import IMAGE_SUFFIXES

if TYPE_CHECKING:
    import torch

    from semiseg.contracts.training import Network

REPORTED = "reported"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Args:
        path: run directory.
        config: resolved config, whose paths are absolute.
        summary: content of ``summary.json``.
        remarks: sentences about data that are read from elsewhere than the run says.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    remarks: tuple[str, ...] = ()

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Extensions of the images that its network takes."""
        return BAND_SUFFIXES if self.config["dataset"].get("bands") else IMAGE_SUFFIXES

    def evaluator(self) -> EvaluatorSettings:
        """Return the settings by which the run evaluated its networks."""
        return build.settings(EvaluatorSettings, self.config["evaluator"])

    def data(self, root: str | None = None) -> tuple[SegDataset, Split]:
        """Build the dataset and the split as the run had them.

        Args:
            root: folder of the files; ``None`` takes the one in the config.

        Raises:
            UserError: a root for a dataset that reads no files.
        """
        config = self.config
        if root is not None:
            if "root" not in config["dataset"]:
                raise UserError(
                    f"--root={root}: dataset '{config['dataset']['name']}' reads no folder; leave it out."
                )
            config = {**config, "dataset": {**config["dataset"], "root": root}}
        else:
            for remark in self.remarks:
                logger.warning(remark)
        dataset = build.dataset(config)
        split = build.split(config, dataset)
        # Only then may images have been left out, and to find them again all are read.
        if getattr(dataset, "skip_bad", False):
            split = check_files(dataset, split).split
        return dataset, split

    def checkpoint(self, name: str) -> Path:
        """Return the file of a network.

        Args:
            name: "reported" for the network whose numbers the run reported, "best" or "last" of the fit that it
                came from, or the path of a file.

        Raises:
            UserError: the run has no such file.
        """
        if name == REPORTED:
            return self.path / str(self.summary["checkpoint"])
        if name not in ("best", "last"):
            return Path(name)
        last = self.summary.get("checkpoint_last")
        if last is None:
            raise UserError(
                f"The network that {self.path} reports is of no single fit; leave --checkpoint out."
            )
        return (self.path / str(last)).with_name(f"{name}.pt")

    def network(self, name: str, device: torch.device) -> tuple[Network, dict[str, Any]]:
        """Load a network onto a device in the memory format of training; return it with its bundle."""
        # Imported only now, so that a command without a run says so quickly.
        import torch

        from semiseg.engine.checkpoint import load_bundle
        from semiseg.models.bundle import from_bundle

        bundle = load_bundle(self.checkpoint(name))
        layout = torch.channels_last if self.config["trainer"]["channels_last"] else torch.contiguous_format
        network: Network = from_bundle(bundle).to(device=device, memory_format=layout)  # type: ignore[call-overload]
        return network, bundle


def open_run(path: Path) -> FinishedRun:
    """Open the directory of a finished run.

    Raises:
        UserError: there is no run, or it has not finished.
    """
    run = StoredRun(path)
    if not run.has_config:
        raise UserError(
            f"{path} holds no run: {RESOLVED} is missing. Give the directory that `semiseg train` printed."
        )
    summary = run.summary
    if summary is None:
        raise unfinished(run)
    config, remarks = with_places(run.config, path)
    return FinishedRun(path, config, summary, tuple(remarks))


def compute_as(run: FinishedRun) -> None:
    """Use the threads and algorithms of the run, so that its numbers come out again."""
    import torch

    from semiseg.models.precision import set_numerics

    trainer = run.config["trainer"]
    torch.set_num_threads(trainer["threads"])
    set_numerics(trainer["precision"], deterministic=trainer["deterministic"])


def named_evaluator(name: str) -> EvaluatorSettings:
    """Read an option of the group ``evaluator``, of semiseg or of the working directory.

    Raises:
        UserError: there is no such option, or a key or value in it is wrong.
    """
    places = [folder / "evaluator" / f"{name}.yaml" for folder in searchpath.search_dirs()]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(
            f"--evaluator={name}: there is no such option. There are: "
            f"{', '.join(searchpath.options('evaluator'))}."
        )
    values = read_config(path)
    if faults := check_evaluator(values):
        raise UserError(f"{path}: {faults[0].key.removeprefix('evaluator.')}: {faults[0].expected}")
    return build.settings(EvaluatorSettings, values)


def change(
    settings: EvaluatorSettings,
    mode: str | None = None,
    window: int | None = None,
    scales: list[float] | None = None,
    flip: bool | None = None,
) -> EvaluatorSettings:
    """Return settings with the given values; ``None`` keeps one, and ``mode="slide"`` removes padding of whole images.

    Raises:
        UserError: a window for whole images, or a value that is wrong, by itself or with the others.
    """
    given: dict[str, Any] = {"mode": mode, "window": window, "scales": scales, "flip": flip}
    if mode == "slide":
        given |= {"pad": "none", "pad_to": 0, "pad_value": "zero", "fit": "pad", "fit_to": None}
    if mode == "whole":
        given |= {"stride_rounding": "up", "window_edge": "shift", "window_sum": "logits"}
    values = dataclasses.asdict(settings) | {key: value for key, value in given.items() if value is not None}
    if window is not None and values["mode"] == "whole":
        raise UserError(f"a window of {window} pixels: whole images have none; choose the mode slide too.")
    if faults := check_evaluator(values):
        raise ConfigFaults(faults)
    return EvaluatorSettings(**values)


def describe(settings: EvaluatorSettings) -> str:
    """Describe in a few words how networks are applied."""
    words = ["whole images" if settings.mode == "whole" else f"windows of {settings.window} pixels"]
    if settings.resize_to is not None:
        words.append("resized to " + "x".join(map(str, settings.resize_to)))
    if settings.fit == "resize":
        words.append(f"resized to the nearest multiple of {settings.fit_to or 'what the network needs'}")
    if settings.pad != "none":
        words.append(f"padded ({settings.pad} {settings.pad_to}, {settings.pad_value})")
    if list(settings.scales) != [1.0]:
        words.append("scales " + ", ".join(f"{scale:g}" for scale in settings.scales))
    if settings.flip:
        words.append("mirrored too")
    return ", ".join(words)
