"""Presets of the FixMatch family, AugSeg, U2PL and CutMix-Seg against the published settings."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from presets import RecordingLab, walk
from semiseg.config import build

V1_PASCAL = (
    ("92", 92, 1311),
    ("183", 183, 1300),
    ("366", 366, 1277),
    ("732", 732, 1231),
    ("1464", 1464, 1140),
)
V1_SHARES = (("1/16", 662, 1240), ("1/8", 1323, 1157), ("1/4", 2646, 992))
V2_PASCAL = (("92", 92, 655), ("183", 183, 650), ("366", 366, 638), ("732", 732, 615), ("1464", 1464, 570))
CITY = (("1/16", 186, 349), ("1/8", 372, 325), ("1/4", 744, 279), ("1/2", 1488, 186))
ADE = (
    ("1/64", 316, 2487),
    ("1/32", 631, 2447),
    ("1/16", 1263, 2368),
    ("1/8", 2526, 2210),
    ("1/4", 5052, 1895),
)
V1_COCO = (("1/512", 232, 14757), ("1/256", 463, 14728), ("1/128", 925, 14670), ("1/64", 1849, 14555))
V2_COCO = (("1/512", 232, 7378), ("1/256", 463, 7364), ("1/128", 925, 7335), ("1/64", 1849, 7277))


@dataclass(frozen=True)
class Published:
    """What a publication says of one preset.

    Args:
        lengths: split, labeled images and iterations of an epoch.
        epochs: number of epochs.
        lr: rate of the backbone at the first step.
        multiplier: factor of the rate of all else.
        batch: images of each stream in a step.
        crop: side of the crops.
        groups: number of GPUs whose losses were averaged; 1 where the method has no such setting.
        threshold: probability that a pseudo-label needs.
        decay: weight decay, of all parameters.
        lagged: whether the second step has the rate of the first.
    """

    lengths: tuple[tuple[str, int, int], ...]
    epochs: int
    lr: float
    multiplier: float
    batch: int
    crop: int
    groups: int
    threshold: float
    decay: float = 1e-4
    lagged: bool = True


PRESETS = {
    "unimatch_voc": Published((*V1_PASCAL, *V1_SHARES), 80, 1e-3, 10, 8, 321, 4, 0.95),
    "unimatch_cityscapes": Published(CITY, 240, 5e-3, 1, 8, 801, 4, 0.0),
    "unimatch_coco": Published(V1_COCO, 30, 4e-3, 10, 8, 513, 4, 0.95),
    "unimatch_v2_voc": Published(V2_PASCAL, 60, 5e-6, 40, 16, 518, 4, 0.95, 0.01),
    "unimatch_v2_cityscapes": Published(CITY, 180, 5e-6, 40, 8, 798, 4, 0.95, 0.01),
    "unimatch_v2_ade20k": Published(ADE, 60, 5e-6, 40, 8, 518, 4, 0.95, 0.01),
    "unimatch_v2_coco": Published(V2_COCO, 20, 5e-6, 40, 16, 518, 4, 0.95, 0.01),
    "prevmatch_voc": Published(V1_PASCAL[:1], 80, 1e-3, 10, 8, 321, 1, 0.95),
    "prevmatch_cityscapes": Published((("1/16", 186, 348),), 240, 5e-3, 1, 8, 801, 2, 0.0),
    "prevmatch_ade20k": Published((("1/32", 631, 2447),), 40, 4e-3, 10, 8, 513, 2, 0.95),
    "prevmatch_coco": Published((("1/256", 463, 14728),), 30, 4e-3, 10, 8, 513, 2, 0.95),
    "corrmatch_voc": Published((("92", 92, 1311), ("1464", 1464, 1139)), 80, 1e-3, 10, 8, 321, 2, 0.85),
    "corrmatch_cityscapes": Published(CITY[:1], 240, 5e-3, 1, 8, 801, 4, 0.0),
    "augseg_voc": Published(
        (("92", 92, 655), ("1464", 1464, 569)), 80, 1e-3, 10, 16, 513, 1, 0.95, lagged=False
    ),
    "augseg_cityscapes": Published((("1/2", 1488, 92),), 240, 1e-2, 1, 16, 800, 1, 0.0, 5e-4, lagged=False),
}
"""Published settings; AugSeg on half of Cityscapes has 93 steps an epoch, since its sampler pads."""

ROWS = [(preset, *length) for preset, found in PRESETS.items() for length in found.lengths]


def group_rates(lab: RecordingLab) -> dict[str, float]:
    (fit,) = lab.fits
    return {group["name"]: group["lr"] for group in fit.groups}


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "split", "labeled", "per_epoch"), ROWS)
def test_presets_are_as_published(preset: str, split: str, labeled: int, per_epoch: int) -> None:
    published = PRESETS[preset]
    cfg, lab = walk(f"experiments={preset} split={split} dataset.root=nowhere", labeled)
    (fit,) = lab.fits
    assert (fit.per_epoch, fit.iterations) == (per_epoch, per_epoch * published.epochs)
    assert set(fit.batch.values()) == {published.batch}
    assert cfg.trainer.crop_size == published.crop
    assert cfg.method.get("groups", 1) == published.groups
    assert threshold_of(cfg) == published.threshold
    assert group_rates(lab) == pytest.approx(
        {"backbone": published.lr, "head": published.lr * published.multiplier}
    )
    assert {group["weight_decay"] for group in fit.groups} == {published.decay}
    second = 1.0 if published.lagged else (1 - 1 / fit.iterations) ** 0.9
    factors = [lab.schedule.factor(step, fit.iterations) for step in range(3)]
    third = (1 - (1 if published.lagged else 2) / fit.iterations) ** 0.9
    assert factors == pytest.approx([1.0, second, third], rel=1e-12)
    orders = {stream.order or name for name, stream in fit.streams.items()}
    assert len(orders) == 1, "labeled and unlabeled entries meet in pairs"


def threshold_of(cfg: Any) -> float:
    return float(build.method(cfg).threshold)  # type: ignore[attr-defined]


ALONE = [
    # preset, split, labeled, iterations, batch, rate of the backbone, decay
    ("supervised_unimatch_voc", "92", 92, 5 * 80, 16, 1e-3, 1e-4),
    ("supervised_unimatch_voc", "1464", 1464, 91 * 80, 16, 1e-3, 1e-4),
    ("supervised_unimatch_cityscapes", "1/8", 372, 23 * 240, 16, 5e-3, 1e-4),
    ("supervised_unimatch_coco", "1/32", 3697, 231 * 30, 16, 4e-3, 1e-4),
    ("supervised_unimatch_v2_voc", "92", 92, 93 * 60, 32, 5e-6, 0.01),
    ("supervised_unimatch_v2_voc", "full", 10582, 330 * 60, 32, 5e-6, 0.01),
    ("supervised_unimatch_v2_cityscapes", "1/2", 1488, 187 * 180, 16, 5e-6, 0.01),
    ("supervised_unimatch_v2_cityscapes", "full", 2975, 187 * 360, 16, 5e-6, 0.01),
    ("supervised_unimatch_v2_ade20k", "1/4", 5052, 375 * 60, 16, 5e-6, 0.01),
    ("supervised_unimatch_v2_ade20k", "full", 20210, 1263 * 120, 16, 5e-6, 0.01),
    ("supervised_unimatch_v2_coco", "1/512", 232, 937 * 20, 32, 5e-6, 0.01),
    ("supervised_unimatch_v2_coco", "full", 118287, 3696 * 40, 32, 5e-6, 0.01),
    ("supervised_u2pl_voc", "1464", 1464, 91 * 80, 16, 1e-3, 1e-4),
    ("supervised_u2pl_cityscapes", "1/4", 744, 46 * 200, 16, 1e-2, 5e-4),
    ("supervised_augseg_voc", "732", 732, 45 * 80, 16, 1e-3, 1e-4),
    ("supervised_augseg_cityscapes", "1/4", 744, 46 * 240, 16, 1e-2, 5e-4),
]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "split", "labeled", "iterations", "batch", "lr", "decay"), ALONE)
def test_presets_of_labeled_images_alone_are_as_published(
    preset: str, split: str, labeled: int, iterations: int, batch: int, lr: float, decay: float
) -> None:
    cfg, lab = walk(f"experiments={preset} split={split} dataset.root=nowhere", labeled)
    (fit,) = lab.fits
    assert (fit.iterations, fit.batch) == (iterations, {"labeled": batch})
    assert group_rates(lab)["backbone"] == lr
    assert {group["weight_decay"] for group in fit.groups} == {decay}
    # Published per GPU, of four: here of the whole batch. UniMatch keeps 200,000, AugSeg and U2PL 100,000.
    kept = 800000 if "unimatch" in preset else 400000
    assert cfg.method.get("ohem_min_kept") == (kept if cfg.dataset.name == "cityscapes" else None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "pool", "iterations", "groups"),
    [
        ("experiments=unimatch_v2_cityscapes dataset.train_extra=true", 2975 + 19998, 2500 * 40, 4),
        (
            "experiments=unimatch_v2_coco dataset.unlabeled2017=true method.groups=8",
            118287 + 123403,
            7713 * 40,
            8,
        ),
    ],
)
def test_all_labels_with_further_images(overrides: str, pool: int, iterations: int, groups: int) -> None:
    labeled = 2975 if "cityscapes" in overrides else 118287
    cfg, lab = walk(f"{overrides} split=full dataset.root=nowhere", labeled, pool)
    (fit,) = lab.fits
    assert (fit.iterations, cfg.method.groups) == (iterations, groups)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_frozen_encoder_is_in_no_group(size: str) -> None:
    overrides = f"experiments=unimatch_v2_voc backbone=dinov2_{size} backbone.freeze=all dataset.root=nowhere"
    _, lab = walk(overrides, 183)
    assert group_rates(lab) == pytest.approx({"head": 2e-4})


U2PL = [
    # dataset, split, labeled, iterations an epoch, epochs, rate, factor of the head, decay, crop
    ("voc", "92", 92, 655, 80, 1e-3, 10, 1e-4, 513),
    ("voc", "1464", 1464, 569, 80, 1e-3, 10, 1e-4, 513),
    ("cityscapes", "1/4", 744, 139, 200, 1e-2, 1, 5e-4, 769),
]
"""Settings of U2PL; with 1464 labels it had 570 steps an epoch on 4 GPUs, since its sampler pads."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "split", "labeled", "per_epoch", "epochs", "lr", "factor", "decay", "crop"), U2PL
)
def test_u2pl_presets_are_as_published(
    dataset: str,
    split: str,
    labeled: int,
    per_epoch: int,
    epochs: int,
    lr: float,
    factor: float,
    decay: float,
    crop: int,
) -> None:
    cfg, lab = walk(f"experiments=u2pl_{dataset} split={split} dataset.root=nowhere", labeled)
    (fit,) = lab.fits
    assert (fit.per_epoch, fit.iterations) == (per_epoch, per_epoch * epochs)
    assert fit.batch == {"labeled": 16, "unlabeled": 16}
    assert cfg.trainer.crop_size == crop
    assert group_rates(lab) == pytest.approx({"backbone": lr, "head": factor * lr})
    assert {group["weight_decay"] for group in fit.groups} == {decay}
    assert lab.schedule.factor(1, fit.iterations) == pytest.approx((1 - 1 / fit.iterations) ** 0.9)
    # 318 tensors of the encoder; decoder, representation head, and on Cityscapes the auxiliary one.
    sizes = {group["name"]: len(group["params"]) for group in fit.groups}
    assert sizes["backbone"] == 318
    assert sizes["head"] == (42 if dataset == "voc" else 42 + 6)
    assert cfg.method.gradient_scale == (1 / 4 if dataset == "voc" else 1 / 8)
    assert cfg.method.get("ohem_min_kept") == (800000 if dataset == "cityscapes" else None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "split", "labeled", "batch", "crop"),
    [("cutmix_seg_voc", "1/100", 106, 10, 321), ("cutmix_seg_cityscapes", "100", 100, 4, [256, 512])],
)
def test_cutmix_seg_presets_are_as_published(
    preset: str, split: str, labeled: int, batch: int, crop: Any
) -> None:
    cfg, lab = walk(f"experiments={preset} split={split} dataset.root=nowhere", labeled)
    (fit,) = lab.fits
    assert (fit.per_epoch, fit.iterations, fit.eval_every) == (1000, 40000, 1000)
    assert fit.batch == {"labeled": batch, "unlabeled": batch, "unlabeled_2": batch}
    assert cfg.trainer.crop_size == crop
    assert (cfg.unlabeled, cfg.trainer.select, cfg.method.confidence) == ("all", "last", "batch_mean")
    assert [lab.schedule.factor(step, 40000) for step in (0, 1, 39999)] == [1, 1, 1]
    assert group_rates(lab) == pytest.approx({"backbone": 9e-6, "head": 3e-5}, rel=2e-3)
    assert {group["weight_decay"] for group in fit.groups} == {0.0}
    # Weights of norms never learn, and the backbone has about 0.3 of the rate of the head.
    assert all(torch.is_tensor(each) for group in fit.groups for each in group["params"])


@pytest.mark.parametrize(
    ("dataset", "split", "iterations", "lr"),
    [("voc", "1/8", 39338, 0.01), ("cityscapes", "1/8", 44525, 0.02)],
)
def test_mean_teacher_presets_have_the_lengths_of_cps(
    dataset: str, split: str, iterations: int, lr: float
) -> None:
    overrides = f"experiments=mean_teacher_{dataset} split={split} dataset.root=nowhere"
    cfg, lab = walk(overrides, 1323 if dataset == "voc" else 372)
    (fit,) = lab.fits
    assert (fit.iterations, fit.lr[0]) == (iterations, lr)
    # What acts is the same on both datasets.
    assert lr * cfg.method.gradient_scale == pytest.approx(0.0025)
    assert cfg.method.get("loss", "ce") == ("ohem" if dataset == "cityscapes" else "ce")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "labeled", "batch", "iterations", "crop", "threshold", "judge"),
    [
        ("adv_semiseg_voc", 1322, 10, 20000, 321, 0.2, 1e-4),
        ("s4gan_voc", 1323, 8, 40000, 321, 0.6, 1e-4),
        ("s4gan_cityscapes", 372, 8, 40000, [256, 512], 0.7, 1e-5),
    ],
)
def test_adversarial_presets_are_as_published(
    preset: str, labeled: int, batch: int, iterations: int, crop: Any, threshold: float, judge: float
) -> None:
    cfg, lab = walk(f"experiments={preset} dataset.root=nowhere", labeled)
    (fit,) = lab.fits
    assert (fit.iterations, fit.eval_every) == (iterations, cfg.trainer.eval_every)
    assert fit.batch == {"labeled": batch, "unlabeled": batch, "labeled_2": batch}
    assert (cfg.trainer.crop_size, cfg.trainer.select) == (crop, "last")
    method: Any = build.method(cfg)
    assert (method.threshold, method.discriminator_lr) == (threshold, judge)
    assert group_rates(lab) == pytest.approx({"backbone": 2.5e-4, "head": 2.5e-3})
    assert {group["weight_decay"] for group in fit.groups} == {5e-4}
    factors = [lab.schedule.factor(step, 20000) for step in (1, 5000, 10000, 19999)]
    rates = [0.00024998875, 0.0001929723767, 0.0001339716828, 3.365216523e-08]
    assert [2.5e-4 * factor for factor in factors] == pytest.approx(rates, rel=1e-9)
    flip = "last" if "cityscapes" in preset else "none"
    assert (cfg.augment.weak.flip, cfg.augment.weak.resize) == (flip, None)
    if preset == "adv_semiseg_voc":
        weights = (method.labeled_weight, method.unlabeled_weight, method.semi_weight)
        assert weights == (0.01, 0.001, 0.1)
        assert method.semi_from * iterations == 5000
        assert (method.adversarial_without_pixels, method.real_crops) == ("dropped", "stretched")
    else:
        assert (method.matching_weight, method.self_weight) == (0.1, 1.0)
        assert (method.real_range, method.score_dropout, method.padding) == (
            "labeled_batch",
            "train",
            "counted",
        )
