"""The named steps of a recipe on disk: ``stages/NN-name/`` with the state in ``step.json``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semiseg.engine.session import Data, Output
from semiseg.errors import UserError
from semiseg.files import read_json, write_json

FILE = "step.json"


@dataclass(frozen=True)
class Origin:
    """Step and file that a network was loaded from."""

    step: str
    file: str
    path: Path


@dataclass
class FitRecord:
    """Progress of a fit and its scores; stored in checkpoints and in the finished step.

    Args:
        completed: optimizer steps done.
        evaluated: ``completed`` at the last evaluation.
        evaluations: number of evaluations done.
        best: metrics of the best evaluation, with ``iteration``; ``None`` before the first.
        last: metrics of the latest evaluation; ``None`` before the first.
        seconds: wall time over all sessions of this fit.
        images: images trained on, all views counted.
        training_seconds: wall time of the training steps, waiting for their data included.
        best_files: iterations of the best networks that the two newest checkpoints refer to.
    """

    completed: int = 0
    evaluated: int = 0
    evaluations: int = 0
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    seconds: float = 0.0
    images: int = 0
    training_seconds: float = 0.0
    best_files: list[int] = field(default_factory=list)


@dataclass
class Step:
    """A named step: ``stages/NN-name/`` with its state in ``step.json``."""

    index: int
    name: str
    directory: Path
    stored: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether the step has finished."""
        return bool(self.stored["state"] == "done")

    @property
    def journal(self) -> int:
        """Size of the journal when the step began."""
        return int(self.stored["journal"])

    @property
    def result(self) -> Any:
        """The result that ``finish`` recorded."""
        return self.stored["result"]

    def finish(self, result: Any) -> None:
        """Record the result; the step is skipped from now on."""
        file = self.directory / FILE
        write_json(file, self.stored | {"state": "done", "result": result})
        # Read again: JSON turns tuples into lists, and the result must be the same now and after a resume.
        self.stored = read_json(file)


def open_step(output: Output, data: Data, index: int, name: str) -> Step:
    """Begin a step, or continue the stored one.

    Raises:
        UserError: the stored step comes from another recipe, other settings or other data.
    """
    root = output.run_dir / "stages"
    directory = root / f"{index:02d}-{name}"
    others = [path.name for path in root.glob(f"{index:02d}-*") if path != directory]
    if others:
        raise UserError(
            f"Step {index} of this run is '{others[0]}', but the recipe now calls it '{directory.name}'. "
            "The method's recipe has changed since the run began: finish it with the previous version, or "
            "start a new run."
        )
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / FILE
    if file.exists():
        stored = read_json(file)
        _require_same(output, data, directory.name, stored)
        return Step(index, name, directory, stored)
    stored = {
        "name": name,
        "state": "running",
        "fingerprint": output.fingerprint,
        "data": data.sha256,
        "journal": output.journal.position(),
    }
    write_json(file, stored)
    return Step(index, name, directory, stored)


def _require_same(output: Output, data: Data, step: str, stored: dict[str, Any]) -> None:
    if stored["fingerprint"] != output.fingerprint:
        raise UserError(
            f"Step '{step}' was made with other settings; continue it with those of run.yaml, or "
            "start a new run."
        )
    now = data.sha256
    # Steps of an earlier version hold no hashes; they are taken as they are.
    changed = [kind for kind, digest in stored.get("data", now).items() if digest != now[kind]]
    if changed:
        raise UserError(
            f"The data has changed since step '{step}' of this run began: the {' and '.join(changed)} images are "
            "others, or in another order. Put the files and lists back as they were, or start a new run."
        )
