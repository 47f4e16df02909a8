"""Where the host may wait for the device, and which convolutions may get maps in another layout: all with a reason.

Counts are limits for one piece of work, so a cure needs no change here; take a line away when nothing reaches it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A place of the package and how often it may do something in one piece of work.

    Args:
        place: what happens and where, as ``fake_recorder`` writes it.
        most: largest number of times.
        reason: why.
        kinds: kinds of work that it is allowed in.
        methods: methods that it is allowed for; empty for all.
    """

    place: str
    most: int
    reason: str
    kinds: tuple[str, ...]
    methods: tuple[str, ...] = ()


STEP, EVALUATE, LABEL, PREDICT = ("step",), ("evaluate",), ("label",), ("predict",)
WRITTEN = "labels and confidence of an image, which are written to files"
SHOWN = "labels and confidence of a picture, which are shown or written to files"

SYNCS = (
    Limit("item at engine/ema.py EMA.update", 1, "first update of a process: the counter is read once", STEP),
    Limit(
        "nonzero at methods/cac.py CACLearner.contrast",
        4,
        "anchors are chosen by their confidence; two times for each group of images",
        STEP,
        ("cac",),
    ),
    Limit(
        "copy at methods/cct.py CCTLearner.cut",
        1,
        "G-Cutout finds the outlines of objects on the CPU",
        STEP,
        ("cct",),
    ),
    Limit("copy at tasks/metrics.py ConfusionMatrix.compute", 1, "the scores of an evaluation", EVALUATE),
    Limit("copy at tasks/boundary.py BoundaryCounts.compute", 1, "the scores of an evaluation", EVALUATE),
    Limit("copy at tasks/calibration.py CalibrationBins.compute", 1, "the scores of an evaluation", EVALUATE),
    Limit("copy at methods/dmt.py DMT._half", 2, WRITTEN, LABEL, ("dmt", "dmtc")),
    Limit("copy at methods/stpp.py SelfTraining._label", 2, WRITTEN, LABEL, ("st", "stpp")),
    Limit("copy at tasks/evaluate.py take_samples", 4, SHOWN, PREDICT),
    Limit("copy at tasks/tiles.py _row", 12, SHOWN, PREDICT),
)

RESIZED = "torch resizes images of three channels to the other layout; the first convolution turns them"
MIXED = "torch.roll gives the images that are mixed in the other layout; the first convolution turns them"
SHUFFLED = "torch.nn.PixelShuffle gives maps in the other layout, of as many channels as there are classes"
JUDGED = "probabilities and one-hot labels come in the other layout; the first convolution turns them"

LAYOUTS = (
    Limit("models/resnet.py ResNet.forward", 1, RESIZED, EVALUATE),
    Limit("models/resnet.py ResNet.forward", 8, RESIZED, LABEL),
    Limit("models/resnet.py ResNet.forward", 6, RESIZED, PREDICT),
    Limit("models/resnet.py ResNet.forward", 2, MIXED, STEP, ("u2pl",)),
    Limit("models/timm_backbone.py Timm.forward", 1, RESIZED, EVALUATE),
    Limit("models/vit.py ViT.forward", 1, RESIZED, EVALUATE),
    Limit(
        "models/pixel_shuffle.py PixelShuffleClassifier.forward", 4, SHUFFLED, (*STEP, *EVALUATE), ("cct",)
    ),
    Limit("models/discriminators.py MapDiscriminator.raw", 4, JUDGED, STEP, ("adv_semiseg",)),
    Limit("models/discriminators.py ImageDiscriminator.forward", 4, JUDGED, STEP, ("s4gan",)),
)
