"""semiseg trains semantic segmentation networks from few labeled and many unlabeled images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from semiseg.runs.predictor import Predictor

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def load(run: Path | str, checkpoint: str = "reported", device: str = "auto") -> Predictor:
    """Open a finished run to predict pictures; see ``semiseg.runs.predictor.load``."""
    # Imported here, so that `import semiseg` stays light.
    from semiseg.runs.predictor import load as open_predictor

    return open_predictor(run, checkpoint, device)
