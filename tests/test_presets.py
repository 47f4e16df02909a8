"""Presets against the published settings: lengths, rates, batches, crops and parameter groups."""

import re
from pathlib import Path
from typing import Any

import pytest

from presets import walk
from semiseg.config.check import Checker
from semiseg.config.compose import Request, draft
from semiseg.config.searchpath import options

PRESETS = Path(__file__).parents[1] / "experiments"
OWN = (
    "camvid_cpu",
    "few_labels",
    "study_camvid",
    "study_few_labels",
    "study_shapes",
    "supervised_few_labels",
)
"""Presets that repeat nothing published."""

CPS_ROWS = [
    # preset, split, labeled, iterations an epoch, iterations, lr at step 0, crop
    ("cps_voc", "1/16", 662, 1240, 39680, 0.01, 512),
    ("cps_voc", "1/8", 1323, 1157, 39338, 0.01, 512),
    ("cps_voc", "1/4", 2646, 992, 39680, 0.01, 512),
    ("cps_voc", "1/2", 5291, 661, 39660, 0.01, 512),
    ("cps_cutmix_voc", "1/8", 1323, 1157, 39338, 0.01, 512),
    ("cps_cityscapes", "1/16", 186, 348, 44544, 0.02, 800),
    ("cps_cityscapes", "1/8", 372, 325, 44525, 0.02, 800),
    ("cps_cityscapes", "1/4", 744, 279, 44640, 0.02, 800),
    ("cps_cityscapes", "1/2", 1488, 186, 44640, 0.02, 800),
    ("cps_cutmix_cityscapes", "1/16", 186, 348, 44544, 0.02, 800),
]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "split", "labeled", "per_epoch", "iterations", "lr", "crop"), CPS_ROWS)
def test_cps_presets_are_as_published(
    preset: str, split: str, labeled: int, per_epoch: int, iterations: int, lr: float, crop: int
) -> None:
    backbone = "resnet101" if split == "1/2" else "resnet50"
    cfg, lab = walk(f"experiments={preset} split={split} backbone={backbone}", labeled)
    (fit,) = lab.fits
    city, cutmix = "cityscapes" in preset, "cutmix" in preset
    assert (fit.per_epoch, fit.iterations) == (per_epoch, iterations)
    assert fit.lr == pytest.approx([lr, lr * 0.5**0.9, lr / iterations**0.9], rel=1e-3)
    assert fit.batch == dict.fromkeys(fit.batch, 8)
    assert len(fit.batch) == (3 if cutmix else 2)
    assert (cfg.trainer.crop_size, cfg.evaluator.window) == (crop, crop)
    published = {(False, False): 1.5, (False, True): 1.0, (True, False): 6.0, (True, True): 5.0}
    assert cfg.method.weight == published[city, cutmix]
    assert cfg.method.gradient_scale == (1 / 8 if city else 1 / 4)
    assert cfg.method.loss == ("ohem" if city else "ce")
    # What acts is the same on both datasets: 0.0025.
    assert lr * cfg.method.gradient_scale == pytest.approx(0.0025)
    # A branch on ResNet-50 has 66 convolutions, the classifier among them; nothing but their weights decays.
    decayed = sum(len(group["params"]) for group in fit.groups if group["weight_decay"] > 0)
    assert decayed == 2 * (66 if backbone == "resnet50" else 117)
    assert {group["weight_decay"] for group in fit.groups} == {0.0, 1e-4}
    assert {group["lr"] for group in fit.groups} == {lr}
    if cutmix:
        orders = {stream.order or name for name, stream in fit.streams.items() if name != "labeled"}
        assert len(orders) == 1
    assert not any(stream.reshuffle for name, stream in fit.streams.items() if name != "labeled")


@pytest.mark.parametrize(
    ("overrides", "labeled", "iterations", "decay"),
    [
        ("experiments=supervised_cps_voc split=1/8", 1323, 39338, 4e-4),
        ("experiments=supervised_cps_cityscapes split=1/4", 744, 44640, 8e-4),
    ],
)
def test_supervised_baselines_of_cps(overrides: str, labeled: int, iterations: int, decay: float) -> None:
    cfg, lab = walk(overrides, labeled)
    (fit,) = lab.fits
    assert fit.iterations == iterations
    assert fit.batch == {"labeled": 8}
    assert fit.lr[0] == 0.0025
    assert {group["weight_decay"] for group in fit.groups} == {0.0, decay}
    assert cfg.method.loss == ("ohem" if "cityscapes" in overrides else "ce")


def test_mean_teacher_preset_is_as_published() -> None:
    cfg, lab = walk("experiments=mean_teacher_voc split=1/8", 1323)
    (fit,) = lab.fits
    assert (fit.per_epoch, fit.iterations) == (1157, 39338)
    assert fit.batch == {"labeled": 8, "unlabeled": 8}
    assert fit.lr[0] * cfg.method.gradient_scale == pytest.approx(0.0025)
    # Of ResNet-50 and its decoder 66 convolutions, the classifier among them; the teacher is not trained.
    decayed = [group for group in fit.groups if group["weight_decay"] > 0]
    assert sum(len(group["params"]) for group in decayed) == 66
    assert {group["lr"] for group in fit.groups} == {0.01}


STPP_ROWS = [
    # dataset, split, labeled, iterations an epoch of the teacher, of the first student, of the last one
    ("voc", "92", 92, 11, 661, 1316),
    ("voc", "183", 183, 22, 656, 1301),
    ("voc", "366", 366, 22, 639, 1279),
    ("voc", "732", 732, 45, 628, 1256),
    ("voc", "1464", 1464, 91, 650, 1210),
    ("voc", "1/16", 662, 41, 641, 1240),
    ("voc", "1/8", 1323, 82, 620, 1157),
    ("voc", "1/4", 2645, 165, 578, 1157),
    ("cityscapes", "1/30", 100, 12, 183, 360),
    ("cityscapes", "1/8", 372, 23, 174, 325),
    ("cityscapes", "1/4", 744, 46, 162, 278),
]


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "split", "labeled", "teacher", "first", "last"), STPP_ROWS)
def test_stpp_presets_are_as_published(
    dataset: str, split: str, labeled: int, teacher: int, first: int, last: int
) -> None:
    method = "st" if split in ("732", "1/4") else "stpp"
    cfg, lab = walk(f"experiments=stpp_{dataset} split={split} method={method}", labeled)
    assert [fit.per_epoch for fit in lab.fits] == (
        [teacher, first, last] if method == "stpp" else [teacher, last]
    )
    epochs, lr = (240, 0.004) if dataset == "cityscapes" else (80, 0.001)
    crop, base = (721, 2048) if dataset == "cityscapes" else (321, 400)
    assert (cfg.trainer.crop_size, cfg.augment.weak.resize.base) == (crop, base)
    for fit in lab.fits:
        assert fit.iterations == epochs * fit.per_epoch
        assert sum(fit.batch.values()) == 16
        assert fit.lr[0] == lr
        assert {group["name"]: group["lr"] for group in fit.groups} == {"backbone": lr, "head": 10 * lr}
        assert {group["weight_decay"] for group in fit.groups} == {1e-4}
        assert [len(group["params"]) for group in fit.groups] == [159, 29]
    unlabeled = len(lab.split.unlabeled)
    sizes = [unlabeled // 2, unlabeled - unlabeled // 2] if method == "stpp" else [unlabeled]
    assert [images for _, images in lab.labelings] == sizes
    family = "clean" if split.isdigit() else "stpp" if split == "1/30" else "cac"
    assert cfg.split_family == family
    assert cfg.method.bn_group_size == 8


@pytest.mark.parametrize(
    ("overrides", "labeled", "iterations"),
    [
        ("experiments=supervised_stpp_voc split=92", 92, 880),
        ("experiments=supervised_stpp_voc split=1/16", 662, 3280),
        ("experiments=supervised_stpp_cityscapes split=1/8", 372, 5520),
    ],
)
def test_supervised_baselines_of_stpp_are_its_teachers(overrides: str, labeled: int, iterations: int) -> None:
    _, lab = walk(overrides, labeled)
    (fit,) = lab.fits
    assert (fit.iterations, fit.batch) == (iterations, {"labeled": 16})


@pytest.mark.slow
@pytest.mark.parametrize("preset", options("experiments"))
def test_every_preset_composes(preset: str) -> None:
    found = draft(Request((f"experiments={preset}", "dataset.root=nowhere")))
    assert Checker().settings(found) == []


def commands() -> list[tuple[str, str]]:
    """The commands in the headers of the presets; notes follow two blanks."""
    return [
        (preset, line.split("semiseg train ")[1].split("  ")[0])
        for preset in options("experiments")
        for line in (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8").splitlines()
        if line.startswith("#   semiseg train ") and " -m " not in line
    ]


@pytest.mark.parametrize(("preset", "command"), commands())
def test_the_command_in_a_header_composes(preset: str, command: str) -> None:
    assert f"experiments={preset}" in command.split()
    assert Checker().settings(draft(Request(tuple(command.split())))) == []


@pytest.mark.parametrize("preset", [name for name in options("experiments") if name not in OWN])
def test_a_header_says_what_to_expect(preset: str) -> None:
    header = "".join(re.findall("^#.*\n", (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"), re.M))
    for part in ("Never run here.", "semiseg train", "(estimate"):
        assert part in header
    assert re.search("mIoU|No published number", header)
    assert re.search("GB|[Mm]emory", header)


def test_an_unpublished_split_is_refused_with_those_that_are() -> None:
    faults: list[Any] = Checker().settings(draft(Request(("experiments=cps_voc", "split=1/7"))))
    assert [(fault.key, fault.value) for fault in faults] == [("split", "1/7")]
    assert "1/16, 1/8, 1/4, 1/2" in str(faults[0])


DMT_ROWS = [
    # preset, labeled, baselines (iterations an epoch, epochs, interval), lr; phases (the same), lr; gamma, batch
    ("dmt_voc_1of20", 530, (67, 134, 220), 0.002, (1436, 4, 500), 0.001, 5, (7, 1)),
    ("dmt_voc_1of106", 100, (10, 300, 100), 0.002, (1498, 4, 500), 0.001, 5, (7, 1)),
    ("dmt_voc_sbd", 1464, (183, 85, 350), 0.002, (1303, 5, 500), 0.001, 5, (7, 1)),
    ("dmt_cityscapes_1of8", 371, (47, 170, 350), 0.004, (434, 10, 300), 0.004, 3, (6, 2)),
    ("dmtc_cityscapes_1of8", 371, (47, 170, 350), 0.004, (434, 10, 300), 0.004, 3, (6, 2)),
    ("dmt_voc_1of50_cbst", 211, (27, 134, 220), 0.002, (1482, 4, 500), 0.001, 0, (7, 1)),
    ("dmt_voc_1of50_dst", 211, (27, 134, 220), 0.002, (1482, 4, 500), 0.001, 5, (7, 1)),
    ("dmt_voc_1of50_naive", 211, (21, 134, 220), 0.002, (1482, 4, 500), 0.001, 5, (7, 1)),
    ("dmt_voc_1of50_flip", 211, (21, 134, 220), 0.002, (1482, 4, 500), 0.001, 5, (7, 1)),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "labeled", "baseline", "baseline_lr", "phase", "phase_lr", "gamma", "batch"), DMT_ROWS
)
def test_dmt_presets_are_as_published(
    preset: str,
    labeled: int,
    baseline: tuple[int, int, int],
    baseline_lr: float,
    phase: tuple[int, int, int],
    phase_lr: float,
    gamma: float,
    batch: tuple[int, int],
) -> None:
    cfg, lab = walk(f"experiments={preset}", labeled)
    partners = 1 if preset.endswith(("cbst", "dst")) else 2
    kinds = {
        "baseline": (partners, baseline, baseline_lr, {"labeled": 8}),
        "phase": (5 * partners, phase, phase_lr, {"pseudo": batch[0], "labeled": batch[1]}),
    }
    for kind, (count, (per_epoch, epochs, interval), lr, sizes) in kinds.items():
        fits = [fit for fit in lab.fits if fit.name.startswith(kind)]
        assert len(fits) == count
        for fit in fits:
            assert (fit.per_epoch, fit.iterations) == (per_epoch, per_epoch * epochs)
            assert (fit.eval_every, fit.batch) == (interval, sizes)
            assert fit.lr == pytest.approx([lr, lr * 0.5**0.9, lr / fit.iterations**0.9], rel=2e-3)
            assert {group["lr"] for group in fit.groups} == {lr}
            assert {group["weight_decay"] for group in fit.groups} == {5e-4}
    assert cfg.trainer.eval_early
    assert (cfg.method.gamma_agree, cfg.method.gamma_disagree) == (gamma, gamma)
    assert list(cfg.method.ratios) == [0.2, 0.4, 0.6, 0.8, 1.0]
    images = lab.fits[-1].streams["pseudo"].items
    assert [count for _, count in lab.labelings] == [len(images)] * 5 * partners
    crop = [256, 512] if "cityscapes" in preset else 321
    assert cfg.trainer.crop_size == crop
    if cfg.method.get("difference") == "initialization" and partners == 2:
        assert lab.weights == ["coco", "imagenet"]
    else:
        assert {weights or cfg.backbone.weights for weights in lab.weights} == {"coco"}


def test_dmt_online_is_one_long_phase() -> None:
    _, lab = walk("experiments=dmt_voc_1of50_online", 211)
    assert [fit.iterations for fit in lab.fits] == [3618, 29640]
    assert lab.fits[-1].lr[0] == 0.001
    assert lab.labelings == []


def test_the_oracle_of_dmt() -> None:
    _, lab = walk("experiments=supervised_dmt_voc", 10582)
    (fit,) = lab.fits
    assert (fit.iterations, fit.eval_every, fit.batch, fit.lr[0]) == (39690, 500, {"labeled": 8}, 0.002)


def test_dmtc_on_voc_builds() -> None:
    cfg, lab = walk("experiments=dmtc_voc_1of8", 1322)
    assert len(lab.fits) == 12
    assert cfg.method.contrast.ignored_as_class_0


CAC_ROWS = [
    ("cac_voc split=1/16", 662, 0.001, 320, 1, 2),
    ("cac_voc split=1/8", 1323, 0.001, 320, 1, 2),
    ("cac_voc split=1/8 backbone=resnet101", 1323, 0.001, 320, 2, 2),
    ("cac_cityscapes split=1/8", 372, 0.01, 720, 0, 4),
    ("cac_cityscapes split=1/4", 744, 0.01, 720, 0, 4),
]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "labeled", "lr", "crop", "bank_steps", "groups"), CAC_ROWS)
def test_cac_presets_are_as_published(
    preset: str, labeled: int, lr: float, crop: int, bank_steps: int, groups: int
) -> None:
    cfg, lab = walk(f"experiments={preset}", labeled)
    (fit,) = lab.fits
    assert (fit.per_epoch, fit.iterations) == (1157, 92560)
    assert fit.batch == {"labeled": 8, "unlabeled": 8}
    assert fit.lr == pytest.approx([lr, lr * 0.53588673, lr * 3.39015058e-5], rel=1e-6)
    assert {group["name"]: group["lr"] for group in fit.groups} == {
        "backbone": lr,
        "head": pytest.approx(10 * lr),
    }
    assert {group["weight_decay"] for group in fit.groups} == {1e-4}
    assert (cfg.trainer.crop_size, cfg.method.bank_steps, cfg.method.groups) == (crop, bank_steps, groups)
    assert (cfg.method.warmup_epochs, cfg.method.weight, cfg.method.temperature) == (5, 0.1, 0.1)
    assert all(stream.replay for stream in fit.streams.values())


@pytest.mark.parametrize(
    ("preset", "labeled", "lr"),
    [("supervised_cac_voc", 1323, 0.001), ("supervised_cac_cityscapes", 372, 0.01)],
)
def test_supervised_baselines_of_cac(preset: str, labeled: int, lr: float) -> None:
    _, lab = walk(f"experiments={preset}", labeled)
    (fit,) = lab.fits
    assert (fit.iterations, fit.batch, fit.lr[0]) == (92560, {"labeled": 8}, lr)


CCT_LENGTHS = [
    ("1464", 80, 912),
    ("1464", 50, 912),
    ("60", 80, 1053),
    ("100", 80, 1049),
    ("200", 80, 1039),
    ("300", 80, 1029),
    ("500", 80, 1009),
    ("800", 80, 979),
    ("1000", 80, 959),
]


@pytest.mark.parametrize(("split", "epochs", "steps"), CCT_LENGTHS)
def test_cct_preset_is_as_published(split: str, epochs: int, steps: int) -> None:
    cfg, lab = walk(f"experiments=cct_voc split={split} trainer.epochs={epochs}", int(split))
    (fit,) = lab.fits
    assert (fit.per_epoch, fit.iterations) == (steps, steps * epochs)
    # The last batch of a pass is short in the published code.
    assert steps == -(-(10582 - int(split)) // 10)
    assert fit.batch == {"labeled": 10, "unlabeled": 10}
    assert fit.eval_every == 5 * steps
    assert fit.lr == pytest.approx([0.001, 0.001 * 0.5**0.9, 0.001 / (steps * epochs) ** 0.9], rel=1e-6)
    assert {group["name"]: group["lr"] for group in fit.groups} == {
        "backbone": 0.001,
        "head": pytest.approx(0.01),
    }
    assert {group["weight_decay"] for group in fit.groups} == {1e-4}
    # The published network has 47,210,776 parameters, 30 auxiliary decoders among them.
    numbers = {group["name"]: sum(each.numel() for each in group["params"]) for group in fit.groups}
    assert numbers == {"backbone": 23_631_808, "head": 47_210_776 - 23_631_808}
    assert (cfg.trainer.crop_size, cfg.augment.weak.resize.base, cfg.evaluator.pad_to) == (320, 400, 8)
    assert (cfg.method.weight, cfg.method.rampup, cfg.method.vat.xi) == (30, 0.1, 1e-6)
    assert all(stream.replay for stream in fit.streams.values())
