"""Settings of a run beside its components: trainer, evaluator, tracker, and the whole; nothing here imports torch."""

from dataclasses import field
from typing import Annotated, Any, Literal

from semiseg.declare import Ge, Gt, Len, Lt, Mark, record

DEFAULT_ITERATIONS = 1000
"""Length of every fit where neither ``trainer.iterations`` nor ``trainer.epochs`` is given."""

MISSING = "???"
"""A value that has to be given; the word that OmegaConf knows it by."""

Count = Annotated[int, Ge(1)]
WithoutEffect = Mark("nothing")

PrimaryScore = Literal[
    "miou",
    "mdice",
    "mprecision",
    "mrecall",
    "accuracy",
    "fwiou",
    "mboundary_iou",
    "foreground_iou",
    "foreground_dice",
    "foreground_precision",
    "foreground_recall",
    "foreground_boundary_iou",
]
"""Scores that networks may be selected and compared by; ``semiseg.contracts.score_names`` names them."""

OptionalMetric = Literal["boundary_iou", "calibration"]
"""Measurements that take time of their own, so that an evaluation makes them on request."""


@record
class TrainerSettings:
    """How long, on what and how often."""

    name: Annotated[str, Mark("nothing", "label")] = "default"
    """Name of the option."""
    iterations: Annotated[Count | None, Mark(role="length")] = None
    """Optimizer steps of every fit; exclusive with ``epochs``."""
    epochs: Annotated[Count | None, Mark(role="length")] = None
    """Passes over the data of every fit, by each method's own rule of what an epoch is."""
    batch_size: Count = 8
    """Labeled images a step."""
    unlabeled_batch_size: Annotated[Count, Mark(role="of method")] = 8
    """Unlabeled images a step; a method that mixes both in a batch takes the sum."""
    crop_size: Annotated[
        Annotated[int, Ge(8)] | Annotated[list[Annotated[int, Ge(8)]], Len(2, 2)],
        Mark(expected="a number of pixels or [height,width], 8 or more"),
    ] = 96
    """Side of the training crops in pixels, or ``[height, width]``."""
    eval_every: Count | None = None
    """Iterations between evaluations; ``null`` takes each epoch where ``epochs`` is given, else a tenth of the fit."""
    eval_early: bool = False
    """Evaluate one iteration before each multiple of ``eval_every`` and one before the last, and never take the
    network of the last one as the best, as DMT does."""
    checkpoint_minutes: Annotated[Annotated[float, Gt(0)] | None, WithoutEffect] = 5.0
    """Minutes between saved training states, which a kill can cost; ``null`` counts iterations alone. The last state of
    a fit, and that of a stop, are saved in any case."""
    checkpoint_every: Annotated[Count | None, WithoutEffect] = None
    """Iterations between saved training states, beside ``checkpoint_minutes``; ``null`` counts minutes alone."""
    log_every: Annotated[Count, WithoutEffect] = 20
    """Iterations between logged lines."""
    samples_every: Annotated[Count | None, WithoutEffect] = None
    """Evaluations between sample pictures; ``null`` makes them at the end only."""
    num_workers: Annotated[Annotated[int, Ge(0)] | None, WithoutEffect] = None
    """Processes that load data; 0 loads in the main process. ``null`` takes 0 on the CPU, and on CUDA the cores but
    two, 1 to 16."""
    threads: Annotated[Count | None, Mark("machine")] = None
    """Threads of the main process; ``null`` takes the cores less the workers. Another number changes the last bits of
    a result."""
    device: Annotated[str, WithoutEffect] = "auto"
    """Device: "auto", "cpu", "cuda" or "cuda:N"."""
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fp64"] = "fp32"
    """Numbers of a network: "fp32"; "tf32", float32 whose convolutions and matrix products are rounded to 10 bits on a
    GPU that can; "bf16" or "fp16", autocast of forward passes, the latter with scaled losses for GPUs without bfloat16;
    "fp64", double precision, slow, to compare computations."""
    accumulate: Count = 1
    """Parts that a step's batch is computed in, to save memory."""
    clip_grad_norm: Annotated[float, Gt(0)] | None = None
    """Largest norm of the gradient; ``null`` does not clip."""
    channels_last: bool = True
    """Use the channels-last memory format for networks and images."""
    max_time: Annotated[str | None, WithoutEffect] = None
    """Time limit of the process, minutes or "H:MM:SS"; the run saves and can be resumed."""
    select: Literal["best", "last"] = "best"
    """Network that a fit hands on and the run reports: "best" on the validation images or "last"."""
    deterministic: bool = False
    """Use deterministic algorithms only on CUDA; only then a resumed run on a GPU equals an uninterrupted one."""


@record
class EvaluatorSettings:
    """How a network is applied to images of any size."""

    name: Annotated[str, Mark(role="label")] = "whole"
    """Name of the option."""
    resize_to: Annotated[
        Annotated[list[Count], Len(2, 2)] | None, Mark(expected="[height,width] in pixels or null")
    ] = None
    """Size ``[height, width]`` that images (bilinear, without antialiasing) and masks (nearest) are brought to before
    all else, as DMT evaluates Cityscapes; ``null`` keeps their size."""
    mode: Literal["whole", "slide"] = "whole"
    """"whole" image at once, or a "slide"-ing window."""
    window: Count = 512
    """Side of the sliding window in pixels."""
    stride: Annotated[float, Gt(0)] = 2 / 3
    """Step of the window: a share of it up to 1, or pixels."""
    stride_rounding: Literal["up", "down"] = "up"
    """Rounding of a share to pixels: "up" as in CPS, "down" as in UniMatch."""
    window_edge: Literal["shift", "shrink"] = "shift"
    """Windows that would reach beyond the image: the last one is moved inside ("shift", CPS and UniMatch V2), or all
    are cut off at the border ("shrink", UniMatch V1)."""
    window_sum: Literal["logits", "probabilities"] = "logits"
    """What windows that share a pixel add up: "logits" as in CPS, or "probabilities" as in UniMatch."""
    scales: Annotated[list[Annotated[float, Gt(0)]], Len(1), Mark(expected="numbers above 0")] = field(
        default_factory=lambda: [1.0]
    )
    """Factors of the image size whose probabilities are averaged."""
    flip: bool = False
    """Add the mirrored image at each scale."""
    pad: Literal["none", "size", "multiple", "center"] = "none"
    """Padding of whole images: "none", to a fixed "size", to a "multiple", or to a size with the image in the
    "center"."""
    pad_to: Annotated[int, Ge(0)] = 0
    """Size or divisor of the padding in pixels."""
    pad_value: Literal["zero", "reflect"] = "zero"
    """Content of the padding: "zero" (black, before normalization, as DMT pads) or "reflect"."""
    fit: Literal["pad", "resize"] = "pad"
    """How a whole image gets sides that the network takes: "pad" at the bottom and right to the next multiple, or
    "resize" to the nearest one and its logits back (bilinear, aligned corners), as UniMatch V2 does."""
    fit_to: Count | None = None
    """Multiple of pixels for ``fit=resize``; ``null`` takes what the network needs, the side of a patch."""
    center_crop: Count | None = None
    """Side of the square in the middle that scores are measured on, as UniMatch V1 could; ``null`` measures whole
    images."""
    absent: Literal["true_only", "skip", "zero"] = "true_only"
    """Classes that the means leave out: all without a pixel in the masks, predicted or not ("true_only"); those in
    neither masks nor predictions, so that one predicted by mistake counts 0 ("skip"); or none, so that they count 0
    ("zero")."""
    primary: PrimaryScore = "miou"
    """Score that networks are selected and runs compared by; ``mboundary_iou`` needs ``boundary_iou`` in ``metrics``,
    ``foreground_iou`` and its like need ``foreground``."""
    metrics: Annotated[
        list[OptionalMetric],
        Mark(role="extra", expected="a list of boundary_iou, calibration, both or neither"),
    ] = field(default_factory=list)
    """Further measurements: "boundary_iou" for contours and thin objects, "calibration" for the confidence."""
    foreground: Annotated[list[str], Mark(expected="a list of class names")] = field(default_factory=list)
    """Classes whose means are reported too, as foreground IoU, Dice, precision and recall; empty for none."""
    boundary_ratio: Annotated[float, Gt(0), Lt(1)] = 0.02
    """Width of the contours of the boundary IoU as a share of the diagonal of the image."""
    calibration_bins: Count = 15
    """Bins of confidence, equally wide, of the expected calibration error."""
    crop_margin: Literal["class_0", "none"] = "none"
    """What an image that is smaller than ``center_crop`` gets on all sides: the mean color that counts as "class_0" in
    the scores, as U2PL measures, or nothing."""
    decimals: Count | None = None
    """Digits that mIoU, a share, is rounded to before it is compared and logged (CAC: 3); ``null`` keeps all."""
    batch_size: Annotated[Count, Mark("machine")] = 8
    """Images of equal size predicted at once in evaluation, and on a GPU in labeling; fewer where memory runs out."""


@record
class TrackerSettings:
    """Where numbers go in addition to metrics.jsonl."""

    name: Annotated[str, Mark(role="label")] = "default"
    """Name of the option."""
    mode: Literal["offline", "online", "disabled"] = "offline"
    """Mode of wandb: "offline" writes files, "online" needs an account, "disabled" does neither."""
    project: str = "semiseg"
    """Project in wandb."""
    entity: str | None = None
    """User or team in wandb."""
    samples: Annotated[int, Ge(0)] = 8
    """Validation images shown with their predictions."""


@record
class OtherNetwork:
    """A second network of a method, with another structure or another optimizer than that of the run.

    Each part is an option of its config group, with the values in ``pairs/`` for its own backbone.
    """

    backbone: Annotated[Any, Mark(role="network", expected="an option of backbone, or null")] = None
    """Backbone: an option such as resnet18, whose keys follow below it (``.backbone.output_stride=8``); ``null`` takes
    that of the run."""
    model: Annotated[Any, Mark(role="network", expected="an option of model, or null")] = None
    """Decoder: an option such as pspnet, whose keys follow below it; ``null`` takes that of the run."""
    optimizer: Annotated[Any, Mark(role="label", expected="an option of optimizer, or null")] = None
    """Optimizer: an option such as adamw, whose keys follow below it (``.optimizer.lr=1e-4``); ``null`` takes that of
    the run."""


OTHER_NETWORKS = ("partner", "student", "probe")
"""Keys of a method that describe an ``OtherNetwork``; also the role of such a network."""

NETWORK_PARTS = ("backbone", "model", "optimizer")
"""Config groups that make up a network and its training, in the order in which they depend on each other."""

Other = Annotated[
    OtherNetwork | None, Mark(expected="keys backbone, model and optimizer below it, or null for none")
]


@record
class RunSettings:
    """The whole config of ``semiseg train``."""

    name: Annotated[str | None, Mark("nothing", "identity")] = None
    """Name of the run; ``null`` composes it from what was chosen."""
    seed: Annotated[int, Ge(0), Mark("training", "repetition")] = 0
    """Seed of everything random."""
    split: Annotated[str, Mark("data")] = "1/32"
    """Share ("1/8") or number ("732") of labeled training images, or "full"."""
    split_family: Annotated[str, Mark("data")] = "every"
    """Origin of the partition: "every" r-th image, "shuffled", a "list" of own files, or one of the published ones
    (``semiseg splits list``)."""
    split_id: Annotated[str, Mark("data", "repetition")] = "0"
    """Which partition of a family."""
    split_lists: Annotated[str | None, Mark("data", "repetition")] = None
    """Folder with labeled.txt, unlabeled.txt and perhaps val.txt, for ``split_family=list``; folder of imported lists,
    for published families; ``null`` looks in ./data_splits and the cache."""
    unlabeled: Annotated[Literal["rest", "all"], Mark("data")] = "rest"
    """Images without labels: the "rest" of the training images, or "all" of them."""
    val_subset: Annotated[str | None, Mark("data")] = None
    """Published subset to select on: "valtiny" is DMT's 20 images of voc, 19 of cityscapes, and makes the other
    validation images test images."""
    run_dir: Annotated[str | None, Mark("nothing", "identity")] = None
    """Directory of the run; ``null`` makes ``runs/NAME/TIME``."""
    sweep_dir: Annotated[str | None, Mark("nothing", "identity")] = None
    """Folder of the jobs of ``-m``; ``null`` makes ``runs/sweeps/TIME``."""
    strict: Annotated[bool, WithoutEffect] = False
    """Refuse to train where the check before training warns: of classes without validation pixels, of copies of
    validation or test images among those that are trained on, of shared groups."""
    keep_pseudo_labels: Annotated[bool, WithoutEffect] = False
    """Keep the files of pseudo-labels after their last use."""
    init_from: Annotated[str | None, Mark("nothing", "run")] = None
    """Run, or a .pt file of its stages, whose network all networks of this run begin as, in place of
    ``backbone.weights``; the classifier too where the classes are the same."""
    init_sha256: Annotated[str | None, Mark("training", "run")] = None
    """Digest of that file; ``null`` is filled in when the run begins."""
    init_head: Annotated[Literal["random", "probe"], Mark("training")] = "random"
    """First weights of the classifiers: "random", or those of a "probe", a linear discriminant of the backbone's maps
    that is fitted to the labeled images; for ``model=light``, or ``linear`` with ``model.norm=none``. A classifier that
    ``init_from`` gives stays."""
    tags: Annotated[list[str], WithoutEffect] = field(default_factory=list)
    """Free words for the tracker."""
    published: Annotated[list[Any], WithoutEffect] = field(default_factory=list)
    """Numbers of papers that a preset names, for the report: rows with ``source``, ``for`` (the option of each config
    group that they hold for) and ``miou`` (percent by split)."""
    data_roots: Annotated[dict[str, str], WithoutEffect] = field(default_factory=dict)
    """Folder of each dataset, for local.yaml."""
    dataset: Annotated[Any, Mark("data")] = MISSING
    """Dataset: ``_target_`` and arguments."""
    backbone: Annotated[Any, Mark("training", "network")] = MISSING
    """Backbone: ``_target_`` and arguments."""
    model: Annotated[Any, Mark("training", "network")] = MISSING
    """Decoder: ``_target_`` and arguments."""
    method: Annotated[Any, Mark("training")] = MISSING
    """Training method: ``_target_`` and arguments."""
    augment: Annotated[Any, Mark("training", "label")] = MISSING
    """Augmentation: ``_target_`` and arguments."""
    optimizer: Annotated[Any, Mark("training", "label")] = MISSING
    """Optimizer: ``_target_`` and arguments."""
    schedule: Annotated[Any, Mark("training", "label")] = MISSING
    """Schedule of the learning rate: ``_target_`` and arguments."""
    trainer: Annotated[TrainerSettings, Mark("training")] = field(default_factory=TrainerSettings)
    """Lengths, batches and intervals."""
    evaluator: Annotated[EvaluatorSettings, Mark("result")] = field(default_factory=EvaluatorSettings)
    """How networks are evaluated."""
    tracker: Annotated[TrackerSettings, WithoutEffect] = field(default_factory=TrackerSettings)
    """Where numbers go."""


COMPONENTS = ("dataset", "backbone", "model", "method", "augment", "optimizer", "schedule")
"""Config groups whose nodes name a ``_target_`` and its arguments."""

RECORDS = {"trainer": TrainerSettings, "evaluator": EvaluatorSettings, "tracker": TrackerSettings}
"""Config groups whose keys are the fields of a record."""

PRESETS = ("experiments", "debug")
"""Config groups whose files change values anywhere."""
