"""Opening a run directory: its config, its data and its networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from semiseg.config import build
from semiseg.contracts.dataset import SegDataset, Split
from semiseg.data.check import check_files
from semiseg.errors import UserError
from semiseg.runs.directory import RunDir
from semiseg.settings import EvaluatorSettings

if TYPE_CHECKING:
    import torch

    from semiseg.contracts.training import Network

CONFIG = "config.resolved.yaml"
REPORTED = "reported"


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Args:
        path: the run directory.
        config: its resolved config.
        summary: content of ``summary.json``.
    """

    path: Path
    config: DictConfig
    summary: dict[str, Any]

    def evaluator(self) -> EvaluatorSettings:
        """How the run evaluated its networks."""
        return build.settings(EvaluatorSettings, self.config.evaluator)

    def data(self, root: str | None = None) -> tuple[SegDataset, Split]:
        """Build the dataset and the split as the run had them.

        Args:
            root: where the files are now; None for where they were.

        Raises:
            UserError: a root for a dataset that reads no files.
        """
        config = self.config
        if root is not None:
            if "root" not in config.dataset:
                raise UserError(
                    f"--root={root}: dataset '{config.dataset.name}' reads no folder; leave it out."
                )
            config = OmegaConf.merge(config, {"dataset": {"root": root}})  # type: ignore[assignment]
        dataset = build.dataset(config)
        split = build.split(config, dataset)
        # Only then images may have been left out, and finding them again takes reading all of them.
        if getattr(dataset, "skip_bad", False):
            split = check_files(dataset, split).split
        return dataset, split

    def checkpoint(self, name: str) -> Path:
        """Return the file of a network.

        Args:
            name: "reported" for the one whose numbers the run reported, "best" or "last" of the fit that it
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
        """Load a network onto a device, laid out as in training; returns it with its bundle."""
        # Imported here, so that a command that is given no run says so quickly.
        import torch

        from semiseg.engine.checkpoint import load_bundle
        from semiseg.models.build import from_bundle

        bundle = load_bundle(self.checkpoint(name))
        layout = torch.channels_last if self.config.trainer.channels_last else torch.contiguous_format
        network: Network = from_bundle(bundle).to(device=device, memory_format=layout)  # type: ignore[call-overload]
        return network, bundle


def open_run(path: Path) -> FinishedRun:
    """Open the directory of a finished run.

    Raises:
        UserError: there is no run, or it has not finished.
    """
    place = RunDir(path)
    if not (path / CONFIG).is_file():
        raise UserError(
            f"{path} holds no run: {CONFIG} is missing. Give the directory that `semiseg train` printed."
        )
    summary = place.read_summary()
    if summary is None:
        state = place.read_status().get("state", "not begun")
        raise UserError(
            f"The run in {path} has not finished ({state}). Go on with it: semiseg train run_dir={path}"
        )
    config = OmegaConf.load(path / CONFIG)
    assert isinstance(config, DictConfig)
    return FinishedRun(path, config, summary)
