"""Which numbers of the published programs are checked: ``pytest tests/golden tests -m golden --golden-report``.

A test says by ``@pytest.mark.golden("check")`` which of the checks below it is part of. Naming this folder first
makes the option known; the second path adds the tests that lie elsewhere.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

CHECKS = {
    "DMT splits": "label lists, drawn anew by the published rule; difference-maximized halves",
    "DMT losses": "dynamic mutual loss, its variants and gradients, on made-up logits",
    "DMT confusion matrix": "matrix, accuracy and mIoU of a made-up prediction",
    "DMT pseudo-labels": "class-balanced thresholds and the pixels kept, five ratios",
    "DMT transforms": "scale, crop, flip and normalization of a made-up image",
    "DMT network": "features, logits and parameter counts of DeepLabV2 with two branches; head of DMTC",
    "DMT schedules": "learning rates, iterations of each fit, evaluation steps, which network labels",
    "DMTC contrast": "losses, unsure pixels, choice of classes, and a replay of published draws",
    "DMT on CIFAR-10": "losses and ramps of image classification",
    "CPS hard pixels": "OHEM cross entropy on made-up logits",
    "CPS loss": "cross pseudo supervision without CutMix",
    "CPS boxes": "CutMix masks of three seeds",
    "CPS loss with CutMix": "the loss of mixed images",
    "CPS network": "features and logits of DeepLabV3+ with the deep stem",
    "CAC network": "features, logits and projections of DeepLabV3+",
    "CAC loss": "three steps with a growing bank, both directions, and gradients",
    "CAC crops": "overlapping crops and flips",
    "CPS and CAC schedules": "learning rates at first, middle and last step",
    "CPS metric": "mIoU with and without background",
    "CPS sliding windows": "prediction of large images window by window",
    "CPS crops": "mirror, scale and crop of six seeds",
    "CPS splits": "label lists by the published rule",
    "CAC lists": "imported label lists, written again as published",
    "CPS gradient scale": "gradients divided once more equal another learning rate and decay",
    "CPS order of images": "both unlabeled streams and the labeled one under one seed",
    "ST++ inputs": "the made-up image and mask of the other checks",
    "ST++ transforms": "resize, crop, flip and cutout of several seeds; normalization; color changes",
    "ST++ metric and palette": "mIoU with an absent class; colors of VOC and Cityscapes",
    "ST++ stability": "scores, the reliable half, epochs of the snapshots",
    "ST++ schedule": "learning rates at four steps",
    "ST++ networks": "logits of DeepLabV3+, PSPNet and DeepLabV2, test-time augmentation, five training steps",
    "ST++ lists and epochs": "published label lists and iterations of an epoch",
    "CutMix-Seg schedules": "poly and cosine rates at five steps",
    "UniMatch schedule": "rates set after a step from its index, two lengths, first to last",
    "UniMatch losses": "FixMatch, UniMatch, UniMatch V2: losses and gradients of seven made-up batches",
    "UniMatch trainings": "five steps of each method and of labeled images alone, with EMA teachers",
    "UniMatch boxes and lists": "CutMix boxes, repeated lists, EMA decays",
    "PrevMatch": "weightings of images, one step with and without earlier networks, ramp, kept networks",
    "Mean Teacher losses": "squared differences and divergence of a student from its teacher, and gradients",
    "Mean Teacher ramps": "sigmoid and linear rise of a weight, cosine fall of a rate",
    "Mean Teacher averages": "teacher's weights after four updates, the first of decay 1/2",
    "Mean Teacher steps": "five training steps: losses, rates, weights and running statistics of both networks",
    "CutMix-Seg boxes": "masks of one box of half the image, and of the options",
    "CutMix-Seg crops": "windows of four seeds, and their pixels",
    "CutMix-Seg loss": "five distances, three uses of the confidence, CutMix and CutOut, and gradients",
    "CutMix-Seg average": "weights and running statistics after three updates",
    "CutMix-Seg metric": "mIoU where a class is absent from both maps",
    "CutMix-Seg steps": "five training steps with three optimizers: losses, weights, the teacher's logits",
    "UniMatch V2 network": "levels, positions and logits of DINOv2 with DPT, complementary masks, parameter counts",
    "UniMatch evaluation": "maps, sizes and mIoU of whole images, center crops and windows, both versions",
    "UniMatch views": "weak crop of an unlabeled image, and which of its pixels are padding",
    "UniMatch networks": "maps, logits, perturbed logits and gradients of DeepLabV3+ on ResNets and Xception-65",
    "U2PL network": "prediction, representation, auxiliary logits and gradients",
    "AugSeg network": "logits, loss and gradients, also for images of even sizes",
    "CutMix-Seg networks": "logits, losses and gradients of DeepLabV2 and DeepLabV3+",
    "SegFormer network": "maps and logits of MiT-B0 with the linear decoder",
    "CorrMatch threshold": "adaptive threshold after three batches",
    "CorrMatch correlation": "propagated logits, regions and gradients of made-up features",
    "CorrMatch step": "pseudo-labels after the votes of regions, six losses and their gradients, three steps",
    "CorrMatch network": "logits, propagated logits, regions and gradients of DeepLabV3+ at output stride 8",
    "CorrMatch training": "losses, threshold and weights over five steps",
    "CCT network": "logits and gradients of PSPNet with pixel shuffles; many decoders as one; first weights",
    "CCT perturbations": "dropped positions, noise, masks, parts that are cut out, adversarial shifts",
    "CCT losses": "five distances with gradients, variance of decoders, annealed cross entropy, ramps",
    "CCT training": "losses and weights over four steps, with cross entropy and annealed",
    "AugSeg confidence": "confidence of two images",
    "AugSeg loss": "unlabeled loss with three thresholds",
    "AugSeg training": "losses and teacher over three epochs, with and without the pass of weak views",
    "UniMatch lists": "published lists of all four datasets, and the rule that divides ADE20K",
    "UniMatch classes": "hashes of class names and colors of ADE20K and COCO",
    "CutMix-Seg splits": "label lists of Cityscapes by the published seeds",
    "U2PL unlabeled loss": "reliable pixels by a percentile of entropy, with ties, and nothing left",
    "U2PL masks": "percentiles of entropy, masks at stride 4, one-hot labels right and as published",
    "U2PL contrast": "three steps of the contrast with its memory, with and without the published faults",
    "U2PL hard pixels": "OHEM cross entropy of two heads",
    "U2PL boxes": "boxes of half of an image, of four seeds",
    "U2PL crops": "two-sided scale, flip, crop and padding of four seeds; crop in the middle",
    "U2PL schedule and windows": "learning rates at five steps, places of the windows on Cityscapes",
    "AdvSemiSeg discriminator": "logits of predictions and of true label maps, before and after enlarging",
    "AdvSemiSeg losses": "losses of and by the discriminator, self-training, and gradients",
    "AdvSemiSeg training": "four steps: losses, rates, weights of both networks; two without confident pixels",
    "s4GAN discriminator": "score and features of an image with its prediction",
    "s4GAN losses": "inputs, scores, feature matching with both ranges, chosen images, and gradients",
    "s4GAN training": "four steps with both ranges: losses, chosen images, weights of both networks",
    "U2PL training": "losses, weights and memory over three epochs, with and without the published faults",
}
"""Every check and what it compares."""

REASONS = {
    "DMT on CIFAR-10": "out of scope: classification",
    "DMTC contrast": "the mean over seeds within the standard error of the recorded one",
    "CPS gradient scale": "the mean over several processes is not repeated",
    "CPS order of images": "which streams agree, not PyTorch's order itself",
    "ST++ transforms": "color changes and blur by strength and distribution, as another library makes them",
}
"""Why a check has no test, or what of it cannot hold to the last digit."""


@dataclass
class Outcomes:
    """Tests of one check."""

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """One word, and the number of tests it stands on."""
        if self.failed:
            return f"FAILED ({len(self.failed)} of {len(self.failed + self.passed + self.skipped)})"
        if self.passed and self.skipped:
            return f"passed ({len(self.passed)}), {len(self.skipped)} skipped"
        if self.passed:
            return f"passed ({len(self.passed)})"
        return f"skipped ({len(self.skipped)})" if self.skipped else "no test ran"

    @property
    def files(self) -> list[str]:
        """Files of these tests."""
        return sorted({name.split("::")[0] for name in self.passed + self.skipped + self.failed})


class GoldenReport:
    """Collects outcomes by check and prints them as a Markdown table."""

    def __init__(self) -> None:
        self.checks: defaultdict[str, Outcomes] = defaultdict(Outcomes)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        for name, check in report.user_properties:
            if name == "golden":
                getattr(self.checks[str(check)], report.outcome).append(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("golden checks")
        terminalreporter.write_line("| check | compares | tests | status |\n|---|---|---|---|")
        for check, what in CHECKS.items():
            outcomes = self.checks[check]
            status = "; ".join(filter(None, [outcomes.status, REASONS.get(check)]))
            terminalreporter.write_line(f"| {check} | {what} | {', '.join(outcomes.files)} | {status} |")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-report", action="store_true", help="list the golden checks and their status")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--golden-report"):
        config.pluginmanager.register(GoldenReport(), "golden-report")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("golden"):
            (check,) = mark.args
            if check not in CHECKS:
                raise pytest.UsageError(f"{item.nodeid}: no golden check {check!r}; tests/golden/conftest.py")
            item.user_properties.append(("golden", check))
