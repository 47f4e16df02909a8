"""How to train on a new dataset: network, size and method from what is known of it, with the reasons.

The numbers of the choice are those of ``training_numbers``; nothing here reads files or imports torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semiseg.onboard.picture_sizes import TypicalSize, typical_size
from semiseg.onboard.training_numbers import NETWORKS, NUMBERS, NetworkRow

SUPERVISED = "supervised"
"""Method that learns from labeled images alone."""

REASONS = {
    "backbone.weights": "Fetched once; `semiseg init --weights FILE` writes a file of this machine.",
    "backbone.freeze": "Stages that stay as they are: a step takes less time.",
    "backbone.freeze_norm": "A few images a step are too few to measure statistics of norms on.",
    "init_head": "The classifier begins as a linear probe of the pretrained maps.",
    "optimizer.lr": "Rate of the pretrained backbone; the decoder's is the multiple.",
}
"""Sentences why keys of a network have their values."""

METHOD_REASONS = {
    "probe_rounds": "The probe labels the unlabeled images and is fitted again, before the training begins.",
    "threshold_rule": "Each class keeps its own best pseudo-labels, so that rare ones are learned too.",
    "keep_share": "Share of the pixels of each predicted class that is learned.",
    "ema_decay": "The average of the weights follows faster than usual, since the run is short.",
    "logit_adjustment": "Rare classes are predicted more than by plain cross entropy; mIoU counts all alike.",
    "augment": "The strong views of semi-supervised methods, for the labeled images.",
}
"""Sentences why keys of a method have their values."""


@dataclass(frozen=True)
class Facts:
    """What is known of a dataset and of the machine.

    Args:
        labeled: number of labeled images to learn from.
        unlabeled: number of images without labels.
        val: number of validation images.
        test: number of test images.
        sizes: number of images by width and height.
        classes: names of the classes.
        pixels: number of pixels of each class in all masks.
        holders: number of masks that hold each class.
        channels: number of channels of an image.
        gpu_gib: memory of the GPU; ``None`` where there is none.
        timm: whether timm is installed.
        minutes: time for one run.
        weights: file of pretrained weights; ``None`` takes those that are fetched.
    """

    labeled: int
    unlabeled: int
    val: int
    sizes: Mapping[tuple[int, int], int]
    classes: tuple[str, ...]
    pixels: tuple[int, ...]
    holders: tuple[int, ...]
    test: int = 0
    channels: int = 3
    gpu_gib: float | None = None
    timm: bool = True
    minutes: float = 20.0
    weights: str | None = None

    @property
    def machine(self) -> str:
        """The machine, in words."""
        return "a CPU" if self.gpu_gib is None else f"a GPU of {self.gpu_gib:.0f} GiB"


@dataclass(frozen=True)
class ChosenKey:
    """One key of a config.

    Args:
        key: key with dots.
        value: plain value.
        reason: sentence above it; empty where the one before holds for it too.
    """

    key: str
    value: Any
    reason: str = ""


@dataclass(frozen=True)
class TrainingChoice:
    """How to train on a dataset; ``training_length`` adds how long.

    Args:
        groups: options of config groups.
        network_reason: sentence why this network.
        method: method.
        method_reason: sentence why this method.
        settings: keys that hold for every method.
        method_settings: keys of the method alone.
        supervised_settings: keys of the method ``supervised``, which the chosen one is compared with.
        supervised_rate: learning rate of this comparison; ``None`` where it is that of the chosen method.
        size: typical size of a picture.
        report: what was chosen, in a few words each.
        warnings: what the choice may lose.
        most: most iterations that the labeled images are worth.
    """

    groups: Mapping[str, str]
    network_reason: str
    method: str
    method_reason: str
    settings: tuple[ChosenKey, ...]
    method_settings: tuple[ChosenKey, ...]
    supervised_settings: tuple[ChosenKey, ...]
    supervised_rate: float | None
    size: TypicalSize
    report: Mapping[str, str]
    warnings: tuple[str, ...]
    most: int


def choose_training(facts: Facts) -> TrainingChoice:
    """Choose network, size and method for a dataset."""
    size = typical_size(facts.sizes)
    row = _network(facts, size)
    factor, learned = _scaled(facts, row, size)
    crop = _crop(row, size, factor)
    method, method_reason, method_settings = _method(facts, row)
    rate = row.supervised_rate if facts.labeled <= NUMBERS.few_labels else None
    alone = method == SUPERVISED
    settings = [
        *_network_settings(facts, row, rate if alone else None),
        *_size_settings(facts, row, size, factor, crop),
        ChosenKey("trainer.batch_size", row.batch, "Labeled and unlabeled images a step."),
        ChosenKey("trainer.unlabeled_batch_size", row.unlabeled_batch),
    ]
    if not facts.val or facts.val < row.choose_from:
        many = (
            f"{facts.val:,} validation images are too few" if facts.val else "There are no validation images"
        )
        reason = f"{many} to choose a network by: the last one is kept."
        settings.append(ChosenKey("trainer.select", "last", reason))
    height, width = crop
    report = {
        "network": f"{row.title}, on {facts.machine}",
        "size": f"{learned}; crops of {width}x{height}",
        "method": f"{method}: {method_reason}",
    }
    warnings = (
        *_size_warnings(size, factor),
        *_lost_classes(facts, factor),
        *_data_warnings(facts, row, method_settings),
    )
    return TrainingChoice(
        row.groups, row.reason, method, method_reason, tuple(settings), method_settings,
        _method_keys(row.supervised_settings), None if alone else rate, size, report, warnings,
        max(row.passes * facts.labeled // row.batch, NUMBERS.passes_least),
    )  # fmt: skip


def _network(facts: Facts, size: TypicalSize) -> NetworkRow:
    if size.long <= NUMBERS.tiny_side and facts.weights is None:
        return NETWORKS["tiny pictures"]
    if facts.gpu_gib is None:
        return NETWORKS["cpu" if facts.timm else "cpu without timm"]
    if not facts.timm:
        return NETWORKS["gpu without timm"]
    return NETWORKS["gpu" if facts.gpu_gib >= NUMBERS.large_gpu else "small gpu"]


def _network_settings(facts: Facts, row: NetworkRow, rate: float | None) -> list[ChosenKey]:
    reasons = dict(REASONS)
    settings = dict(row.settings)
    if rate is not None:
        settings["optimizer.lr"] = rate
    if facts.weights is not None:
        settings["backbone.weights"] = facts.weights
        reasons["backbone.weights"] = "Pretrained weights on this machine."
    return [ChosenKey(key, value, reasons.get(key, "")) for key, value in settings.items()]


def _scaled(facts: Facts, row: NetworkRow, size: TypicalSize) -> tuple[float, str]:
    """Return the factor that pictures are learned at, and words for it."""
    side = row.long_side
    if side is not None and facts.gpu_gib is None and facts.minutes >= NUMBERS.long_run:
        side = round(side * NUMBERS.long_run_factor / row.multiple) * row.multiple
    factor = 1.0 if side is None else min(side / size.long, NUMBERS.enlarge)
    factor = float(f"{factor:.3g}")
    if factor == 1 or 0.9 < factor < 1.1:
        return 1.0, f"pictures as they are, {size.width}x{size.height}"
    width, height = round(size.width * factor), round(size.height * factor)
    return factor, f"pictures of {size.width}x{size.height} at {factor:g} of their size, {width}x{height}"


def _crop(row: NetworkRow, size: TypicalSize, factor: float) -> tuple[int, int]:
    """Return height and width of the crops: of the shape of a picture, and no larger; square for mixed shapes."""
    stretch = 1.0 if size.turned else math.sqrt(size.width / size.height)
    wanted = row.crop_side / stretch, row.crop_side * stretch
    whole = (size.height * factor, size.width * factor)
    least = math.ceil(32 / row.multiple)
    height, width = (
        max(min(round(side / row.multiple), int(most / row.multiple)), least) * row.multiple
        for side, most in zip(wanted, whole, strict=True)
    )
    return height, width


def _size_settings(
    facts: Facts, row: NetworkRow, size: TypicalSize, factor: float, crop: tuple[int, int]
) -> list[ChosenKey]:
    low, high = (float(f"{factor * each:.3g}") for each in row.scale)
    text = (
        f"Pictures are learned and evaluated at {factor:g} of their size."
        if factor != 1
        else "Pictures are learned and evaluated at their own size."
    )
    settings = [
        ChosenKey("evaluator.scales", [factor], text),
        ChosenKey("augment.weak.resize.low", low, "Range of the random scale around it."),
        ChosenKey("augment.weak.resize.high", high),
        ChosenKey("trainer.crop_size", list(crop), "Height and width of the training crops."),
    ]
    most = NUMBERS.evaluated_values // (size.width * size.height * max(len(facts.classes), 1))
    if most < 8:
        reason = "Labels are compared at full size: more of these pictures at once take much memory."
        settings.insert(1, ChosenKey("evaluator.batch_size", max(most, 1), reason))
    return settings


def _method(facts: Facts, row: NetworkRow) -> tuple[str, str, tuple[ChosenKey, ...]]:
    name, keys = SUPERVISED, row.supervised_settings
    if not facts.unlabeled:
        reason = "all pictures have labels"
    elif facts.unlabeled < max(NUMBERS.unlabeled, facts.labeled):
        reason = (
            f"{facts.unlabeled:,} unlabeled beside {facts.labeled:,} labeled images are too few to gain from"
        )
    else:
        name, keys = row.semi, row.semi_settings
        reason = f"{facts.unlabeled:,} unlabeled beside {facts.labeled:,} labeled images"
    return name, reason, _method_keys(keys)


def _method_keys(settings: Mapping[str, Any]) -> tuple[ChosenKey, ...]:
    return tuple(ChosenKey(key, value, METHOD_REASONS.get(key, "")) for key, value in settings.items())


def _size_warnings(size: TypicalSize, factor: float) -> list[str]:
    found = []
    if size.spread >= NUMBERS.spread:
        small, large = (round(side * factor) for side in (size.short_end, size.long_end))
        found.append(
            f"pictures differ in size: most have longer sides from {size.short_end:,} to {size.long_end:,} pixels, "
            f"which become {small:,} to {large:,}. One factor holds for all, by their median; bring them to one size "
            "for better results"
        )
    if factor <= NUMBERS.much_smaller:
        found.append(
            f"pictures have {1 / factor:.0f} times the sides that are learned: reading them takes much of the time. "
            "Copies of half the sides, with their masks, are learned in the same way and faster"
        )
    return found


def _lost_classes(facts: Facts, factor: float) -> list[str]:
    """Warn of classes that cover less than a place of the network's maps in a typical picture of them."""
    lost = [
        f"{name} ({covered:.0f} pixels)"
        for name, count, masks in zip(facts.classes, facts.pixels, facts.holders, strict=True)
        if count and (covered := count / masks * factor**2) < NUMBERS.cell**2
    ]
    if not lost:
        return []
    more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    advice = (
        "raise evaluator.scales, augment.weak.resize and trainer.crop_size together"
        if factor < 1
        else "hard to learn"
    )
    return [
        f"small in the pictures that show them, at this size: {', '.join(lost[:3])}{more}; the network's maps have a "
        f"value for {NUMBERS.cell}x{NUMBERS.cell} pixels: {advice}"
    ]  # fmt: skip


def _data_warnings(facts: Facts, row: NetworkRow, method_settings: Sequence[ChosenKey]) -> list[str]:
    found = []
    # Without a probe none can train itself.
    rounds = " method.probe_rounds=0" * any(each.key == "probe_rounds" for each in method_settings)
    pretrained = row.settings.get("backbone.weights")
    if facts.channels != 3 and pretrained:
        found.append(
            f"images have {facts.channels} channels: the first filters of the pretrained network, which are for RGB, "
            "are repeated for them. Whether that helps was not measured: compare with backbone.weights=none "
            f"init_head=random{rounds}"
        )
    if facts.labeled < 5:
        found.append(
            f"{facts.labeled} labeled image{'s' * (facts.labeled > 1)} to learn from: expect little, and label more"
        )
    if sum(count > 0 for count in facts.pixels) < 2:
        found.append("one class alone is in the masks: there is nothing to tell apart")
    if row.groups.get("backbone") == "tiny":
        found.append(
            "tiny photographs may gain from a pretrained network at twice their size: `--weights FILE` chooses that"
        )
    return found
