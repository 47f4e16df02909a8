"""Run directories as ``semiseg train`` leaves them, written without training."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CLASSES = ("road", "car")
PROBED = {
    "_target_": "semiseg.settings.OtherNetwork",
    "model": {"name": "linear", "_target_": "semiseg.models.linear.Linear", "levels": 3, "norm": "none"},
}
"""Network of a probe: the backbone of the run with a decoder of its own."""


def write_run(
    folder: Path,
    miou: float | None = 0.5,
    *,
    method: str = "supervised",
    split: str = "1/8",
    seed: int = 0,
    split_id: str | None = None,
    labeled: str | None = None,
    state: str = "done",
    error: str | None = None,
    iterations: int = 100,
    evaluator: dict[str, Any] | None = None,
    git: dict[str, str] | None = None,
    version: str = "1.0",
    config: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    overrides: tuple[str, ...] = (),
    metrics: tuple[dict[str, Any], ...] = (),
) -> Path:
    """Write a run directory; ``config`` (dotted keys) and ``summary`` replace single values."""
    split_id = str(seed) if split_id is None else split_id
    labeled = labeled or f"labeled {split} {split_id}"
    settings = {
        "evaluator.name": "whole",
        "evaluator.mode": "whole",
        "evaluator.scales": [1.0],
        **{f"evaluator.{key}": value for key, value in (evaluator or {}).items()},
    }
    resolved = OmegaConf.create(
        {
            "name": f"shapes-{method}-s{seed}",
            "seed": seed,
            "split": split,
            "split_family": "shuffled",
            "split_id": split_id,
            "unlabeled": "rest",
            "dataset": {"name": "shapes", "_target_": "semiseg.data.folder.Folder", "root": "/somewhere"},
            "backbone": {"name": "tiny", "weights": None},
            "model": {"name": "deeplabv3plus"},
            "method": {"name": method},
            "optimizer": {"name": "sgd", "lr": 0.01},
            "trainer": {"iterations": iterations, "threads": 1},
        }
    )
    for key, value in {**settings, **(config or {})}.items():
        OmegaConf.update(resolved, key, value, force_add=True)
    folder.mkdir(parents=True)
    OmegaConf.save(resolved, folder / "config.resolved.yaml")
    (folder / "run.yaml").write_text("")
    _json(folder / "overrides.yaml", list(overrides))
    _json(folder / "env.json", {"packages": {"semiseg": version, "torch": "2"}, "git": git, "gpus": []})
    _json(folder / "status.json", {"state": state, "pid": 1, "error": error})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (folder / "stages" / "00-train").mkdir(parents=True)
    _json(folder / "stages" / "00-train" / "step.json", {"data": {"val": "validation ids"}})
    if state == "done":
        iou = None if miou is None else [miou + 0.1, miou - 0.1]
        _json(
            folder / "summary.json",
            {
                "miou": miou,
                "miou_best": miou,
                "miou_last": None if miou is None else miou - 0.02,
                "miou_test": None if miou is None else miou - 0.05,
                "iou": dict(zip(CLASSES, iou, strict=True)) if iou else {},
                "iou_test": dict(zip(CLASSES, iou, strict=True)) if iou else {},
                "accuracy": 0.9,
                "split": split,
                "split_fraction": 1.0 if split == "full" else 0.125,
                "split_counts": {"labeled": 4, "unlabeled": 28, "val": 8, "test": 8},
                "split_sha256": {"labeled": labeled, "unlabeled": f"rest of {labeled}"},
                "seed": seed,
                "iterations": iterations,
                "train_images_per_s": 10.0,
                "wall_s": 60.0,
                "device": "cpu",
                "threads": 1,
                **(summary or {}),
            },
        )
    return folder


def write_probe(
    folder: Path,
    miou: float,
    *,
    config: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    **more: Any,
) -> Path:
    """Write a run of a method without a training loop: no fit, no curve, no speed, but a decoder of its own.

    ``more`` as of ``write_run``.
    """
    nothing: dict[str, Any] = dict.fromkeys(
        ("miou_best", "miou_last", "best_iteration", "train_images_per_s")
    )
    found = {"iterations": 0, "fits": {}, "network": "probe", "wall_s": 3.0, "checkpoint_last": None}
    given = {**nothing, **found, **(summary or {})}
    own = {"method._target_": "semiseg.methods.probe.Probe", "method.probe": PROBED}
    return write_run(
        folder, miou, summary=given, config={**own, **(config or {})}, **{"method": "probe", **more}
    )


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
