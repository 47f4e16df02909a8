"""Run directories of made-up numbers, as a sweep leaves them; nothing is trained."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from semiseg.data.dataset import DatasetInfo
from semiseg.track.base import Sample
from semiseg.track.samples import write_samples

INFO = DatasetInfo("made", ("road", "tree <b>", "car & van"), ((128, 64, 128), (0, 140, 70), (0, 0, 160)))
FRACTIONS = {"1/16": 1 / 16, "1/8": 1 / 8, "full": 1.0}
ITERATIONS = 100


def make_run(
    folder: Path, method: str, split: str, seed: int, miou: float, state: str = "done", **config: Any
) -> Path:
    """Write a run directory.

    Args:
        folder: gets the run's folder.
        method: "supervised" logs no pseudo-labels, "st" those that it stores, others those of each batch.
        split: a key of ``FRACTIONS``.
        seed: of the run, and of the partition.
        miou: of the reported network on the validation images.
        state: as in ``status.json``; only a run that is "done" has a summary.
        config: more top-level keys, such as ``trainer={"iterations": 50}``.
    """
    run = folder / f"made-{split.replace('/', 'of')}-{method}-s{seed}"
    run.mkdir(parents=True)
    values = {
        "dataset": {"name": "made", "_target_": "made.Dataset"},
        "method": {"name": method},
        "model": {"name": "deeplabv3plus"},
        "backbone": {"name": "tiny"},
        "evaluator": {"name": "whole", "mode": "whole", "scales": [1.0]},
        "split": split,
        "split_family": "every",
        "split_id": str(seed),
        "seed": seed,
        "trainer": {"iterations": ITERATIONS},
    } | config
    (run / "run.yaml").write_text(yaml.safe_dump(values))
    (run / "config.resolved.yaml").write_text(yaml.safe_dump(values))
    _write(run / "overrides.yaml", [f"method={method}", f"split={split}", f"seed={seed}"])
    _write(run / "env.json", {"packages": {"semiseg": "0.1.0"}, "git": {"commit": "c" * 40, "diff": ""}})
    error = "RuntimeError: <script>alert(1)</script>" if state == "failed" else None
    _write(run / "status.json", {"state": state, "step": "train", "iteration": ITERATIONS, "error": error})
    lines = _metrics(method, miou)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if state == "done":
        _write(run / "summary.json", _summary(values, miou))
        write_samples(run / "samples", _samples(method, seed), INFO)
    return run


def make_sweep(folder: Path, methods: Sequence[str] = ("supervised", "cps", "st"), seeds: int = 3) -> Path:
    """Write runs of all methods at two ratios and of the first with all labels; each better than the one before."""
    for rank, method in enumerate(methods):
        for split in ("1/16", "1/8"):
            for seed in range(seeds):
                gain = 0.02 * rank + (0.1 if split == "1/8" else 0)
                make_run(folder, method, split, seed, 0.5 + gain + 0.01 * ((seed * 7 + rank * 3) % 5))
    for seed in range(seeds):
        make_run(folder, methods[0], "full", seed, 0.75 + 0.005 * seed)
    return folder


def _summary(config: dict[str, Any], miou: float) -> dict[str, Any]:
    iou = dict(zip(INFO.classes, (min(miou + 0.2, 1), miou, max(miou - 0.2, 0)), strict=True))
    split, seed = str(config["split"]), config["seed"]
    return {
        "miou": miou,
        "selected_by": "best on the validation images",
        "miou_best": miou,
        "miou_last": miou - 0.01,
        "miou_test": miou - 0.05,
        "iou": iou,
        "iou_test": {name: value * 0.9 for name, value in iou.items()},
        "accuracy": min(miou + 0.3, 1),
        "evaluator": config["evaluator"],
        "split": split,
        "split_family": config["split_family"],
        "split_id": config["split_id"],
        "split_fraction": FRACTIONS[split],
        "split_counts": {"labeled": round(160 * FRACTIONS[split]), "unlabeled": 100, "val": 4, "test": 8},
        "split_sha256": {part: _digest(part, split, seed) for part in ("labeled", "unlabeled")},
        "seed": seed,
        "method": config["method"]["name"],
        "dataset": "made",
        "model": "deeplabv3plus",
        "backbone": "tiny",
        "iterations": config["trainer"]["iterations"],
        "fits": {},
        "train_images_per_s": 20.0 + seed,
        "wall_s": 90.0 + 30 * seed,
        "pseudo_labels": {},
        "device": "cpu",
        "threads": 1,
        "checkpoint": "checkpoints/best.pt",
        "checkpoint_last": "stages/00-train/last.pt",
        "skipped_files": [],
    }


def _metrics(method: str, miou: float) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(10, ITERATIONS + 1, 10):
        done = step / ITERATIONS
        line = {"iteration": step, "stage": "train", "train/loss": 2 - done, "time/memory_gib": 1.2}
        if method not in ("supervised", "st"):
            line["train/unlabeled_used"] = 0.4 + 0.5 * done
        lines.append(line)
        if step % 20 == 0:
            lines.append(
                {"iteration": step, "stage": "train", "val/miou": miou * done**0.3, "pseudo/accuracy": 0.8}
            )
    if method == "st":
        stored = {
            "pseudo/coverage": 0.9,
            "pseudo/confidence": 0.8,
            "pseudo/accuracy": 0.85,
            "pseudo/miou": 0.5,
        }
        lines.insert(7, {"iteration": 50, "stage": "label", **stored})
    return lines


def _samples(method: str, seed: int) -> list[Sample]:
    generator = np.random.default_rng(0)
    own = np.random.default_rng([seed, len(method)])
    samples = []
    for number in range(4):
        image = generator.integers(0, 255, (30, 40, 3), np.uint8)
        truth = np.repeat(np.arange(3, dtype=np.uint8), 10)[:, None].repeat(40, 1)
        prediction = np.where(own.random((30, 40)) < 0.1, 2, truth).astype(np.uint8)
        samples.append(Sample(f"scene_{number}", image, truth, prediction, own.random((30, 40), np.float32)))
    return samples


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture file."""
    with Image.open(path) as picture:
        return picture.size
