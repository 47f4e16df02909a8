"""Checkpoints that survive a kill at any moment and never load damaged."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from semiseg.errors import RunFailed, UserError
from semiseg.files import (
    file_digest,
    read_json,
    remove_temporaries,
    sync_directory,
    temporary,
    write_json,
    write_text,
)
from semiseg.models.weights_content import content_of

log = logging.getLogger(__name__)

# More than the two files in place: a kill between manifest and rename leaves the digest of a state that is lost.
KEPT_DIGESTS = 8
NAMES = ("last.pt", "last.prev.pt")


def _write_temporary(path: Path, state: dict[str, Any]) -> Path:
    part = temporary(path)
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            # Before any rename: else a power cut could leave the final name on a file without content.
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise RunFailed(
            f"{path} cannot be written ({error}). Make room on the disk and start again with the same run_dir: "
            "the run goes on from its last saved state."
        ) from error
    return part


def save_bundle(path: Path, state: dict[str, Any]) -> None:
    """Save a network, and its digest in the same folder (``NAME.pt.sha256``), atomically."""
    part = _write_temporary(path, state)
    # The digest first: a kill in between leaves a file that is called damaged, never one that passes unchecked.
    write_text(path.with_name(path.name + ".sha256"), file_digest(part) + "\n")
    part.replace(path)
    sync_directory(path.parent)


def load_bundle(path: Path) -> dict[str, Any]:
    """Load what ``save_bundle`` wrote, on the CPU.

    Raises:
        UserError: the file is missing, or its content is not what was written.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.")
    digest = path.with_name(path.name + ".sha256")
    if digest.is_file() and digest.read_text().strip() != file_digest(path):
        raise UserError(
            f"{path} is damaged: its sha256 differs from {digest.name}. Restore it or train again."
        )
    return _content(path)


def _content(path: Path) -> dict[str, Any]:
    state = content_of(path)
    if not isinstance(state, dict):
        raise UserError(f"{path} holds {type(state).__name__}, not a checkpoint of semiseg.")
    return state


class TrainingState:
    """The training state of the running step: ``last.pt`` and ``last.prev.pt`` with a digest manifest.

    The manifest lists the digests of every file that may be in place, and is written before the files are
    renamed, so that a kill between any two operations leaves files that can be verified.

    Args:
        directory: ``checkpoints/`` of a run directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = directory / "manifest.json"
        self._damaged: set[Path] = set()
        directory.mkdir(parents=True, exist_ok=True)
        remove_temporaries(directory)

    def _read_manifest(self) -> dict[str, Any] | None:
        try:
            manifest: dict[str, Any] = read_json(self.manifest)
        except (OSError, ValueError):
            return None
        return manifest

    def save(self, step: str, state: dict[str, Any]) -> None:
        """Save the state of ``step`` as ``last.pt``; the previous one becomes ``last.prev.pt`` unless it is damaged.

        Raises:
            RunFailed: the disk is full or refuses to be written; the previous states are untouched.
        """
        last, previous = (self.directory / name for name in NAMES)
        part = _write_temporary(last, {**state, "step": step})
        manifest = self._read_manifest()
        known = manifest["digests"] if manifest else []
        write_json(self.manifest, {"step": step, "digests": [*known, file_digest(part)][-KEPT_DIGESTS:]})
        # A damaged file must not replace the one that this step was resumed from.
        if last.exists() and last not in self._damaged:
            last.replace(previous)
        part.replace(last)
        self._damaged.discard(last)
        sync_directory(self.directory)

    def load(self, step: str) -> dict[str, Any] | None:
        """Return the newest undamaged state of ``step``; ``None`` where it has not been saved yet.

        Raises:
            UserError: there are states of this step and all are damaged.
        """
        manifest = self._read_manifest()
        files = [self.directory / name for name in NAMES if (self.directory / name).exists()]
        # The files are shared by all steps of a run: those of an earlier step are no fault of this one.
        if not files or (manifest is not None and manifest["step"] != step):
            return None
        if manifest is None:
            log.warning("%s is missing or unreadable: checkpoints cannot be verified", self.manifest)
        faults = []
        for path in files:
            if manifest is not None and file_digest(path) not in manifest["digests"]:
                faults.append(f"{path}: content differs from its sha256")
                log.warning("%s is damaged (sha256 differs); trying the one before it", path)
                self._damaged.add(path)
                continue
            try:
                state = _content(path)
            except UserError as error:
                faults.append(str(error))
                log.warning("%s", error)
                self._damaged.add(path)
                continue
            if state.get("step") == step:
                return state
        if faults:
            raise UserError(
                "All checkpoints of this run are damaged, so it cannot be resumed:\n  "
                + "\n  ".join(faults)
                + f"\nRestore one of them, or delete {self.directory} to train this step again from its beginning."
            )
        return None
