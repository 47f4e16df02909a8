"""Shape, types and ranges of the config; importing this module does not import torch.

A field's metadata may hold ``choices`` (all allowed values), ``low`` (smallest allowed number) and ``above``
(all numbers must be larger). ``semiseg.config.check`` reads them.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from semiseg.splits.manifest import family_names

DEFAULT_ITERATIONS = 1000
"""Length of every fit where neither ``trainer.iterations`` nor ``trainer.epochs`` is given."""

OWN_LENGTHS = ("baseline_epochs", "phase_epochs")
"""Keys of a method that give some of its fits another number of epochs than ``trainer.epochs``."""

COMPONENTS = ("dataset", "backbone", "model", "method", "augment", "optimizer", "schedule")
"""Config groups whose nodes name a ``_target_`` and its arguments."""

SETTINGS = ("trainer", "evaluator", "tracker")
"""Config groups whose keys are the fields of a dataclass."""

PRESETS = ("experiments", "debug")
"""Config groups whose files change values anywhere."""


def one_of(default: str, *others: str) -> Any:
    """Field of one out of several names; the first is the default."""
    return field(default=default, metadata={"choices": (default, *others)})


def at_least(low: float, default: float | None) -> Any:
    """Field of a number that is ``low`` or larger."""
    return field(default=default, metadata={"low": low})


@dataclass
class TrainerSettings:
    """How long, on what and how often.

    Args:
        name: name of the option.
        iterations: optimizer steps of every fit; exclusive with ``epochs``.
        epochs: passes over the data of every fit, by each method's own rule of what an epoch is.
        batch_size: labeled images a step.
        unlabeled_batch_size: unlabeled images a step; a method that mixes both in a batch takes the sum.
        crop_size: side of the training crops in pixels, or ``[height, width]``.
        eval_every: iterations between evaluations; None means each epoch where ``epochs`` is given, else a
            tenth of the fit.
        eval_early: evaluate one iteration before each multiple of ``eval_every`` and one before the last, and
            never take the network of the last one as the best, as DMT does.
        checkpoint_every: iterations between saved training states.
        log_every: iterations between logged lines.
        samples_every: evaluations between sample pictures; None means at the end only.
        num_workers: processes that load data; 0 loads in the main process.
        threads: threads of the main process; None means the cores less the workers. Another number changes
            the last bits of a result.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "fp32", or "bf16" autocast.
        accumulate: parts that a step's batch is computed in, to save memory.
        clip_grad_norm: largest norm of the gradient; None does not clip.
        channels_last: memory format of networks and images.
        max_time: time limit of the process, minutes or "H:MM:SS"; the run saves and can be resumed.
        select: which network a fit hands on and the run reports, "best" on the validation images or "last".
        deterministic: only deterministic algorithms on CUDA.
    """

    name: str = "default"
    iterations: int | None = at_least(1, None)
    epochs: int | None = at_least(1, None)
    batch_size: int = at_least(1, 8)
    unlabeled_batch_size: int = at_least(1, 8)
    crop_size: Any = 96
    eval_every: int | None = at_least(1, None)
    eval_early: bool = False
    checkpoint_every: int = at_least(1, 200)
    log_every: int = at_least(1, 20)
    samples_every: int | None = at_least(1, None)
    num_workers: int = at_least(0, 0)
    threads: int | None = at_least(1, None)
    device: str = "auto"
    precision: str = one_of("fp32", "bf16")
    accumulate: int = at_least(1, 1)
    clip_grad_norm: float | None = field(default=None, metadata={"above": 0})
    channels_last: bool = True
    max_time: str | None = None
    select: str = one_of("best", "last")
    deterministic: bool = False


@dataclass
class EvaluatorSettings:
    """How a network is applied to images of any size.

    Args:
        name: name of the option.
        resize_to: ``[height, width]`` that images (bilinear, without antialiasing) and masks (nearest) are brought
            to before all else, as DMT evaluates Cityscapes; None keeps their size.
        mode: "whole" image at once, or a "slide"-ing window.
        window: side of the sliding window in pixels.
        stride: step of the window: a share of it up to 1, or pixels.
        scales: factors of the image size whose probabilities are averaged.
        flip: add the mirrored image at each scale.
        pad: of whole images: "none", to a fixed "size", to a "multiple", or to a size with the image in the
            "center".
        pad_to: the size or the divisor in pixels.
        pad_value: "zero" (black, before normalization, as DMT pads) or "reflect".
        absent: whether classes in neither prediction nor truth are left out of the mean ("skip") or count 0.
        decimals: digits that mIoU, a share, is rounded to before it is compared and logged (CAC: 3); None keeps all.
        batch_size: images of equal size evaluated at once.
    """

    name: str = "whole"
    resize_to: list[int] | None = field(default=None, metadata={"low": 1})
    mode: str = one_of("whole", "slide")
    window: int = at_least(1, 512)
    stride: Any = 2 / 3
    scales: list[float] = field(default_factory=lambda: [1.0], metadata={"above": 0})
    flip: bool = False
    pad: str = one_of("none", "size", "multiple", "center")
    pad_to: int = at_least(0, 0)
    pad_value: str = one_of("zero", "reflect")
    absent: str = one_of("skip", "zero")
    decimals: int | None = at_least(1, None)
    batch_size: int = at_least(1, 8)


@dataclass
class TrackerSettings:
    """Where numbers go beside metrics.jsonl.

    Args:
        name: name of the option.
        mode: of wandb: "offline" writes files, "online" needs an account, "disabled" does neither.
        project: wandb project.
        entity: wandb user or team.
        samples: validation images shown with their predictions.
    """

    name: str = "default"
    mode: str = one_of("offline", "online", "disabled")
    project: str = "semiseg"
    entity: str | None = None
    samples: int = at_least(0, 8)


@dataclass
class RunSettings:
    """The whole config of ``semiseg train``.

    Args:
        name: name of the run; None composes it from what was chosen.
        seed: everything random is a function of it.
        split: share ("1/8") or number ("732") of labeled training images, or "full".
        split_family: where the partition comes from: "every" r-th image, "shuffled", a "list" of own files, or
            one of the published ones (``semiseg splits list``).
        split_id: which partition of a family.
        split_lists: folder with labeled.txt, unlabeled.txt and perhaps val.txt, for ``split_family=list``; folder
            of imported lists, for published families; None looks in ./data_splits and the cache.
        unlabeled: images without labels: the "rest" of the training images, or "all" of them.
        val_subset: "valtiny" selects on DMT's 20 images of voc, 19 of cityscapes, and reports the other
            validation images as test images.
        run_dir: the run directory; None means ``runs/NAME/TIME``.
        sweep_dir: folder of the jobs of ``-m``; None means ``runs/sweeps/TIME``.
        keep_pseudo_labels: keep the files of pseudo-labels after their last use.
        init_from: a run, or a .pt file of its stages, whose network all networks of this run begin as, in place of
            ``backbone.weights``; the classifier too where the classes are the same.
        init_sha256: digest of that file; None is filled in when the run begins.
        tags: free words for the tracker.
        published: numbers of papers that a preset names, for the report: rows with ``source``, ``for`` (the option
            of each config group that they hold for) and ``miou`` (percent by split).
        data_roots: folder of each dataset, for local.yaml.
        dataset: ``_target_`` and arguments; so are the next six.
    """

    name: str | None = None
    seed: int = at_least(0, 0)
    split: str = "1/16"
    split_family: str = one_of(*family_names())
    split_id: str = "0"
    split_lists: str | None = None
    unlabeled: str = one_of("rest", "all")
    val_subset: str | None = None
    run_dir: str | None = None
    sweep_dir: str | None = None
    keep_pseudo_labels: bool = False
    init_from: str | None = None
    init_sha256: str | None = None
    tags: list[str] = field(default_factory=list)
    published: list[Any] = field(default_factory=list)
    data_roots: dict[str, str] = field(default_factory=dict)
    dataset: Any = MISSING
    backbone: Any = MISSING
    model: Any = MISSING
    method: Any = MISSING
    augment: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    evaluator: EvaluatorSettings = field(default_factory=EvaluatorSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)


def register(typed: bool) -> None:
    """Make ``schema`` known to Hydra.

    Args:
        typed: with types, a wrong key or value stops the composition at the first fault; without, the same
            defaults accept everything, so that ``check`` can name all faults.
    """
    root = OmegaConf.structured(RunSettings)
    node = root if typed else OmegaConf.create(OmegaConf.to_container(root))
    ConfigStore.instance().store(name="schema", node=node, provider="semiseg")
