"""A sweep of run directories with curves and pictures, written without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from written_runs import write_run

from semiseg.contracts.dataset import DatasetInfo
from semiseg.contracts.tracking import Sample
from semiseg.tasks.samples import write_samples

INFO = DatasetInfo("made", ("road", "tree <b>", "car & van"), ((128, 64, 128), (0, 140, 70), (0, 0, 160)))
FRACTIONS = {"1/16": 1 / 16, "1/8": 1 / 8, "full": 1.0}
ITERATIONS = 100


def draw_run(folder: Path, method: str, split: str, seed: int, miou: float, **more: Any) -> Path:
    """Write a run directory into ``folder``.

    Args:
        folder: gets the run's folder.
        method: "supervised" logs no pseudo-labels, "st" those that it stores, others those of each batch.
        split: a key of ``FRACTIONS``.
        seed: of the run, and of the partition.
        miou: of the reported network on the validation images.
        more: as of ``write_run``.
    """
    iou = dict(zip(INFO.classes, (min(miou + 0.2, 1), miou, max(miou - 0.2, 0)), strict=True))
    summary = {
        "iou": iou,
        "iou_test": {name: value * 0.9 for name, value in iou.items()},
        "split_fraction": FRACTIONS[split],
        "split_counts": {"labeled": round(160 * FRACTIONS[split]), "unlabeled": 100, "val": 4, "test": 8},
        "wall_s": 90.0 + 30 * seed,
        "checkpoint": "checkpoints/best.pt",
    }
    run = write_run(
        folder / f"made-{split.replace('/', 'of')}-{method}-s{seed}",
        miou,
        method=method,
        split=split,
        seed=seed,
        summary=summary,
        metrics=tuple(_metrics(method, miou)),
        **more,
    )
    write_samples(run / "samples", _samples(method, seed), INFO)
    return run


def draw_sweep(folder: Path, methods: Sequence[str] = ("supervised", "cps", "st"), seeds: int = 3) -> Path:
    """Write runs of all methods at two ratios and of the first with all labels; each better than the one before."""
    for rank, method in enumerate(methods):
        for split in ("1/16", "1/8"):
            for seed in range(seeds):
                gain = 0.02 * rank + (0.1 if split == "1/8" else 0)
                draw_run(folder, method, split, seed, 0.5 + gain + 0.01 * ((seed * 7 + rank * 3) % 5))
    for seed in range(seeds):
        draw_run(folder, methods[0], "full", seed, 0.75 + 0.005 * seed)
    return folder


def _metrics(method: str, miou: float) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(10, ITERATIONS + 1, 10):
        done = step / ITERATIONS
        line = {"iteration": step, "stage": "train", "train/loss": 2 - done, "time/memory_gib": 1.2}
        if method not in ("supervised", "st"):
            line["train/unlabeled_used"] = 0.4 + 0.5 * done
        lines.append(line)
        if step % 20 == 0:
            scores = {"val/miou": miou * done**0.3, "pseudo/accuracy": 0.8}
            lines.append({"iteration": step, "stage": "train", **scores})
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
    scenes = np.random.default_rng(0)
    own = np.random.default_rng([seed, len(method)])
    truth = np.repeat(np.arange(3, dtype=np.uint8), 10)[:, None].repeat(40, 1)
    samples = []
    for number in range(4):
        image = scenes.integers(0, 255, (30, 40, 3), np.uint8)
        prediction = np.where(own.random((30, 40)) < 0.1, 2, truth).astype(np.uint8)
        samples.append(Sample(f"scene_{number}", image, truth, prediction, own.random((30, 40), np.float32)))
    return samples
