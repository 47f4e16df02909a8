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
    "UniMatch views": "weak crop of an unlabeled image, and which of its pixels are padding",
    "U2PL unlabeled loss": "reliable pixels by a percentile of entropy, with ties, and nothing left",
    "U2PL masks": "percentiles of entropy, masks at stride 4, one-hot labels right and as published",
    "U2PL contrast": "three steps of the contrast with its memory, with and without the published faults",
    "U2PL hard pixels": "OHEM cross entropy of two heads",
    "U2PL boxes": "boxes of half of an image, of four seeds",
    "U2PL crops": "two-sided scale, flip, crop and padding of four seeds; crop in the middle",
    "U2PL schedule and windows": "learning rates at five steps, places of the windows on Cityscapes",
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
