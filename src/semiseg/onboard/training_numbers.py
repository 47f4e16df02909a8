"""All numbers by which ``semiseg init`` chooses how to train: networks with their settings, and limits that decide."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple


@dataclass(frozen=True)
class NetworkRow:
    """A network, and the numbers that it is trained with.

    Args:
        title: words for it.
        groups: options of config groups.
        settings: plain keys.
        reason: sentence why, for the config.
        long_side: longer side in pixels that typical pictures are brought to; ``None`` keeps their size.
        scale: range of the random scale, relative to that.
        crop_side: side of a square of as many pixels as a training crop, which has the shape of a picture.
        multiple: pixels that the sides of crops are a multiple of.
        batch: labeled images a step.
        unlabeled_batch: unlabeled images a step.
        semi: method that learns from unlabeled images.
        semi_settings: keys of this method.
        supervised_settings: keys of the method ``supervised``.
        supervised_rate: learning rate of ``supervised`` with few labels; ``None`` takes that of the network.
        passes: most times that each labeled image is learned.
        choose_from: validation images from which the best network is kept by their score; with fewer it is the last.
    """

    title: str
    groups: Mapping[str, str]
    settings: Mapping[str, Any]
    reason: str
    long_side: int | None = 320
    scale: tuple[float, float] = (0.7, 1.4)
    crop_side: int = 192
    multiple: int = 32
    batch: int = 2
    unlabeled_batch: int = 2
    semi: str = "fixmatch"
    semi_settings: Mapping[str, Any] = field(default_factory=dict)
    supervised_settings: Mapping[str, Any] = field(default_factory=dict)
    supervised_rate: float | None = None
    passes: int = 100
    choose_from: int = 0


LIGHT = {"model": "light", "optimizer": "adamw", "schedule": "cosine"}
TINY_METHOD = {
    "student_view": "weak",
    "teacher_mode": "train",
    "distance": "ce_hard",
    "threshold": 0.7,
    "ema_decay": 0.98,
    "rampup_epochs": 4,
}
"""As ``conf/pairs/shapes-cutmix_seg.yaml``, which says why."""

LIGHT_METHOD = {
    "probe_rounds": 2,
    "threshold_rule": "class_balanced",
    "keep_share": 0.5,
    "ema_decay": 0.98,
    "logit_adjustment": 0.5,
}
LIGHT_SUPERVISED = {"augment": "strong", "ema_decay": 0.98, "logit_adjustment": 0.5}
LIGHT_SETTINGS = {
    "init_head": "probe",
    "optimizer.lr": 2.0e-4,
    "optimizer.head_multiplier": 10.0,
    "optimizer.weight_decay": 0.01,
    "schedule.warmup": 0.1,
}
LIGHT_SUPERVISED_RATE = 5.0e-5
"""As ``experiments/supervised_few_labels.yaml``, which says why."""

DINOV2_SETTINGS = {
    "backbone.weights": "pretrained",
    "evaluator.fit": "resize",
    "optimizer.lr": 5.0e-6,
    "optimizer.head_multiplier": 40.0,
    "optimizer.weight_decay": 0.01,
}
PUBLISHED = "Rests on published results (UniMatch V2, arXiv 2410.10777); it was not measured here."

DINOV2 = NetworkRow(
    "DINOv2-B with DPT",
    {"backbone": "dinov2_base", "model": "dpt", "optimizer": "adamw"},
    DINOV2_SETTINGS,
    PUBLISHED,
    long_side=518,
    scale=(0.5, 2.0),
    crop_side=448,
    multiple=14,
    batch=4,
    unlabeled_batch=4,
)

NETWORKS = {
    "cpu": NetworkRow(
        "EfficientNet-Lite0, pretrained, with a light decoder",
        {"backbone": "timm", **LIGHT},
        {
            "backbone.name": "tf_efficientnet_lite0",
            "backbone.output_stride": 32,
            "backbone.weights": "pretrained",
            "backbone.freeze": 3,
            "backbone.freeze_norm": True,
            **LIGHT_SETTINGS,
        },
        "A small pretrained network, since there is no GPU.",
        semi_settings=LIGHT_METHOD,
        supervised_settings=LIGHT_SUPERVISED,
        supervised_rate=LIGHT_SUPERVISED_RATE,
        choose_from=20,
    ),
    "cpu without timm": NetworkRow(
        "ResNet-18, pretrained, with a light decoder",
        {"backbone": "resnet18", **LIGHT},
        {
            "backbone.output_stride": 32,
            "backbone.weights": "imagenet",
            "backbone.freeze": 3,
            "backbone.freeze_norm": True,
            **LIGHT_SETTINGS,
        },
        "The smallest pretrained network of torchvision; with timm installed it would be tf_efficientnet_lite0.",
        semi_settings=LIGHT_METHOD,
        supervised_settings=LIGHT_SUPERVISED,
        supervised_rate=LIGHT_SUPERVISED_RATE,
        choose_from=20,
    ),
    "gpu": DINOV2,
    "small gpu": replace(
        DINOV2,
        title="DINOv2-S with DPT",
        groups={"backbone": "dinov2_small", "model": "dpt", "optimizer": "adamw"},
        crop_side=350,
    ),
    "gpu without timm": NetworkRow(
        "ResNet-50, pretrained, with a light decoder",
        {"backbone": "resnet50", **LIGHT},
        {"backbone.weights": "imagenet", "backbone.freeze_norm": True, **LIGHT_SETTINGS},
        "A network of torchvision; with timm installed it would be DINOv2. It was not measured here.",
        long_side=480,
        crop_side=320,
        batch=4,
        unlabeled_batch=4,
        semi_settings=LIGHT_METHOD,
        supervised_settings=LIGHT_SUPERVISED,
        supervised_rate=LIGHT_SUPERVISED_RATE,
        choose_from=20,
    ),
    "tiny pictures": NetworkRow(
        "the network `tiny`, from random weights",
        {"backbone": "tiny"},
        {},
        "Made for pictures of about 96 pixels, and small; pretrained networks are made for larger pictures.",
        long_side=None,
        scale=(0.5, 2.0),
        crop_side=140,
        batch=4,
        unlabeled_batch=4,
        semi="cutmix_seg",
        semi_settings=TINY_METHOD,
        passes=200,
    ),
}
"""Networks by situation. Measured here on small sets of photographs: "cpu"; on drawn pictures: "tiny pictures"."""


class Numbers(NamedTuple):
    """Limits that decide."""

    tiny_side: int = 128
    """Longer side up to which pictures count as tiny."""
    large_gpu: float = 24.0
    """Memory in GiB from which a GPU gets the larger network."""
    long_run: float = 60.0
    """Minutes from which pictures are learned at a larger size."""
    long_run_factor: float = 1.5
    """Factor of that size."""
    enlarge: float = 2.0
    """Largest factor that pictures are enlarged by."""
    spread: float = 1.5
    """Factor between the longer sides of a tenth of the pictures and of the last tenth from which they differ much."""
    much_smaller: float = 0.25
    """Factor below which pictures are much larger than what is learned of them."""
    unlabeled: int = 20
    """Unlabeled images from which a semi-supervised method is chosen, if they are as many as the labeled ones too."""
    cell: int = 8
    """Pixels of the side of what the network sees as one place; a class that covers less is warned of."""
    least: int = 100
    """Fewest iterations."""
    few_labels: int = 50
    """Labeled images up to which labels alone are learned at a rate of their own."""
    passes_least: int = 600
    """Iterations that the most passes never go below."""
    unmeasured: int = 1000
    """Iterations where no time could be measured."""
    evaluation_share: float = 0.1
    """Share of the time that evaluations may take."""
    evaluations: tuple[int, int] = (2, 10)
    """Fewest and most evaluations of a run."""
    evaluated_values: int = 2**26
    """Most logits of a batch of images in an evaluation, at 4 bytes each."""


NUMBERS = Numbers()
