"""Short runs of every method and command, and what they have to give again: the same bits, or nearly the same numbers.

A change that should not alter results is held against ``fixtures/same_results.json``, which an earlier state of the
code wrote. It holds, for each run, sha256 digests of all tensors, labels and confidences, which are compared only in
an environment that digests were recorded in (processor and versions of what computes), and losses and scores, which
are compared everywhere with a tolerance. Nothing but the command line and the files of a run is used.

    python tests/same_results.py check           the runs that the tests make
    python tests/same_results.py check --all     all of them; or --only 'cps*'
    python tests/same_results.py record --all    write the file; digests of other environments stay
"""

import argparse
import csv
import hashlib
import io
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semiseg.cli import main as semiseg

FIXTURES = Path(__file__).resolve().parent / "fixtures"
RECORDED = FIXTURES / "same_results.json"
START = FIXTURES / "start.pt"
"""A network that knows the shapes a little, so that pseudo-labels have several classes; see ``START_MADE_BY``."""

START_MADE_BY = (
    "semiseg train method=supervised backbone.width=4 model.channels=8 model.low_channels=4 augment=none "
    "optimizer=adamw optimizer.lr=0.01 schedule=cosine split=full dataset.train=256 dataset.val=8 dataset.test=2 "
    "dataset.size=32 dataset.clutter=0 trainer.crop_size=32 trainer.batch_size=8 trainer.iterations=2500 "
    "trainer.eval_every=500 trainer.channels_last=false trainer.threads=1"
)

# Narrow networks crash under channels_last on some processors.
BASE = (
    *("dataset=shapes", "dataset.train=18", "dataset.val=4", "dataset.test=2", "dataset.size=32"),
    *("dataset.clutter=0", "split=1/3", "backbone=tiny", "backbone.width=4"),
    *("model.channels=8", "model.low_channels=4", "trainer.channels_last=false"),
    *(
        "trainer.crop_size=32",
        "trainer.iterations=6",
        "trainer.batch_size=4",
        "trainer.unlabeled_batch_size=2",
    ),
    *("trainer.eval_every=3", "trainer.log_every=2", "trainer.threads=1", "trainer.device=cpu"),
    *("tracker.mode=disabled", "tracker.samples=1"),
    # The rule that the numbers were recorded under: few small images lack a class.
    "evaluator.absent=skip",
)
WIDE = "backbone.width=8 trainer.channels_last=true"
PILLOW_LABELS = "augment.weak.resize.label_interpolation=null"
STARTED = "init_from={start} optimizer.lr=0.01"
CAC = (
    f"method=cac {STARTED} method.iterations_per_epoch=2 method.warmup_epochs=1 method.positive_threshold=0.2"
)
ST = f"{STARTED} method.scales=[0.75,1.0] keep_pseudo_labels=true"
PHASES = "method.ratios=[0.5,1.0] trainer.iterations=4 trainer.eval_every=2"
DMT = f"method=dmt {PHASES} {STARTED} method.difference=data keep_pseudo_labels=true"
QUERIES = "method.contrast.num_queries=16 method.contrast.num_negatives=16 method.contrast.channels=8"
DMTC = f"method=dmtc {PHASES} {STARTED} method.difference=data {QUERIES}"
RESNET = (
    "method=supervised backbone=resnet18 backbone.weights=none ~backbone.width trainer.iterations=1 "
    "trainer.channels_last=true"
)
FOLDER = (
    "~dataset.train ~dataset.val ~dataset.test ~dataset.size ~dataset.clutter dataset=folder "
    "dataset.root={pictures} dataset.classes=[ground,box,bar] trainer.crop_size=32"
)


@dataclass(frozen=True)
class Case:
    """A run, and commands that use it.

    Args:
        name: its name, and that of its directory.
        words: overrides of ``BASE``, divided by blanks; ``{start}``, ``{runs}`` and ``{pictures}`` are replaced,
            ``~KEY`` takes one away.
        commands: what is done with the run, by a name: words of a command that writes into ``{out}``.
        tested: whether the tests make it too.
        needs: names of the runs that it takes networks from.
    """

    name: str
    words: str
    commands: tuple[tuple[str, str], ...] = ()
    tested: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a run and its commands gave.

    Args:
        digests: the first half of a sha256 by what it was taken of.
        numbers: losses and scores by what they are, in their order.
    """

    digests: dict[str, str]
    numbers: dict[str, list[float]]


EVALUATED = (
    ("eval", "eval {run} -o {out} --mode whole"),
    ("eval-slide", "eval {run} -o {out} --mode slide --window 24 --flip --scales 0.75,1"),
    ("eval-last", "eval {run} -o {out} --checkpoint last --part unlabeled --evaluator cac"),
    ("predict", "predict {run} {pictures}/images -o {out} --confidence 16"),
    ("predict-slide", "predict {run} {pictures}/images -o {out} --mode slide --window 24 --confidence 8"),
    ("predict-tile", "predict {run} {pictures}/images -o {out} --tile 32 --overlap 8 --flip --no-overlay"),
    ("label", "label {run} {pictures}/images -o {out} --keep 0.6"),
    ("label-stability", "label {run} {pictures}/images -o {out} --rank stability --scales 0.75,1 --flip"),
)


def cases() -> list[Case]:
    """All runs, those that others take networks from first."""
    supervised = f"method=supervised {STARTED}"
    cps = "method=cps"
    rows: list[tuple[str, str, bool]] = [
        ("supervised-seed-1", "method=supervised seed=1", False),
        ("supervised-fresh", "method=supervised", False),
        ("supervised-strong", f"{supervised} method.augment=strong", False),
        ("supervised-ohem", f"{supervised} method.loss=ohem method.ohem_min_kept=50", False),
        ("supervised-ema", f"{supervised} method.ema_decay=0.8", True),
        ("supervised-groups", f"{supervised} method.bn_group_size=2", True),
        (
            "supervised-double",
            f"{supervised} method.double_below=200 trainer.epochs=2 ~trainer.iterations",
            False,
        ),
        ("supervised-accumulate", f"{supervised} trainer.accumulate=2 trainer.clip_grad_norm=0.5", False),
        ("supervised-bf16", f"method=supervised {WIDE} trainer.precision=bf16", False),
        ("supervised-wide", f"method=supervised {WIDE}", True),
        ("supervised-adamw", f"{supervised} optimizer=adamw schedule=cosine schedule.warmup=0.3", False),
        ("supervised-sgd", f"{supervised} optimizer.head_multiplier=10 optimizer.decay=conv", False),
        ("supervised-early", f"{supervised} trainer.eval_early=true", False),
        ("supervised-last", f"{supervised} trainer.select=last split_family=shuffled split_id=1", False),
        ("supervised-slide", f"{supervised} evaluator=slide evaluator.window=24 evaluator.flip=true", False),
        ("supervised-scales", f"{supervised} evaluator.scales=[0.75,1.0] evaluator.flip=true", False),
        ("supervised-padded", f"{supervised} evaluator=cac evaluator.pad_to=20", False),
        *((f"augment-{name}", f"{supervised} augment={name}", False) for name in ("none", "cps", "dmt")),
        # Recorded before labels were resized by OpenCV, as CAC does.
        ("augment-cac", f"{supervised} augment=cac {PILLOW_LABELS}", False),
        (
            "augment-stpp",
            f"{supervised} augment=stpp augment.weak.resize.base=40 method.augment=strong",
            False,
        ),
        ("folder", f"method=supervised {FOLDER} split=1/2", True),
        ("folder-cps", f"method=cps {FOLDER} split=1/2", False),
        *(
            (f"tiny-{name}", f"method=supervised model={name} ~model.channels ~model.low_channels", False)
            for name in ("deeplabv2", "pspnet")
        ),
        *(
            (f"tiny-{name}", f"method=supervised model={name}", False)
            for name in ("deeplabv3plus_cac", "deeplabv3plus_cps")
        ),
        *(
            (f"resnet18-{name}", f"{RESNET} model={name} ~model.channels ~model.low_channels", False)
            for name in ("deeplabv2", "deeplabv3plus", "deeplabv3plus_cac", "deeplabv3plus_cps", "pspnet")
        ),
        ("cps", cps, True),
        ("cps-seed-1", f"{cps} seed=1", False),
        ("cps-started", f"{cps} {STARTED}", False),
        ("cps-plain", f"{cps} method.cutmix=false", False),
        ("cps-merge", f"{cps} method.merge=true trainer.unlabeled_batch_size=4", True),
        (
            "cps-merge-plain",
            f"{cps} method.merge=true method.cutmix=false trainer.unlabeled_batch_size=4",
            False,
        ),
        ("cps-ohem", f"{cps} method.loss=ohem method.ohem_min_kept=50", False),
        ("cps-labeled", f"{cps} method.labeled_in_cps=true", False),
        ("cps-unlabeled", f"{cps} method.cutmix=false method.labeled_in_cps=false unlabeled=all", False),
        ("cps-better", f"{cps} method.report=better", True),
        ("cps-eval", f"{cps} method.teacher_mode=eval", False),
        ("cps-scale", f"{cps} method.gradient_scale=0.5 method.weight=1.5", False),
        ("cps-same-image", f"{cps} method.same_image=true method.reshuffle_unlabeled=false", False),
        ("cps-lengths", f"{cps} method.nominal_lengths=true trainer.epochs=2 ~trainer.iterations", False),
        ("cps-accumulate", f"{cps} trainer.accumulate=2 trainer.unlabeled_batch_size=4", False),
        ("cps-bf16", f"{cps} {WIDE} trainer.precision=bf16", False),
        ("cps-model", f"{cps} model=deeplabv3plus_cps augment=cps", False),
        ("cac", CAC, False),
        ("cac-seed-1", f"{CAC} seed=1", False),
        ("cac-overlap", f"{CAC} method.normalizer=overlap", False),
        ("cac-no-bank", f"{CAC} method.bank_steps=0", False),
        ("cac-bank-2", f"{CAC} method.bank_steps=2 method.groups=2", True),
        ("cac-selected", f"{CAC} method.selected=20 method.replay=true", False),
        (
            "cac-strong",
            f"{CAC} method.labeled_augment=strong method.loss=ohem method.ohem_min_kept=50",
            False,
        ),
        ("cac-sizes", f"{CAC} method.downsample=false method.projection=16 method.weight=0.3", False),
        ("cac-accumulate", f"{CAC} trainer.accumulate=2 trainer.unlabeled_batch_size=4", False),
        (
            "cac-model",
            f"method=cac model=deeplabv3plus_cac augment=cac method.warmup_epochs=0 {PILLOW_LABELS}",
            False,
        ),
        ("st", f"method=st {ST}", False),
        ("st-seed-1", f"method=st {ST} seed=1", False),
        ("st-groups", f"method=st {ST} method.bn_group_size=2 method.flip=false", True),
        (
            "st-ohem",
            f"method=st {ST} method.loss=ohem method.ohem_min_kept=50 method.teacher_augment=strong",
            False,
        ),
        ("stpp", f"method=stpp {ST}", True),
        ("stpp-seed-1", f"method=stpp {ST} seed=1", False),
        ("stpp-groups", f"method=stpp {ST} method.bn_group_size=2 method.snapshots=[0.5,1.0]", False),
        ("stpp-fraction", f"method=stpp {ST} method.reliable_fraction=0.25 method.double_below=0", False),
        ("dmt", DMT, True),
        ("dmt-seed-1", f"{DMT} seed=1", False),
        ("dmt-fresh", f"method=dmt {PHASES}", False),
        ("dmt-flip", f"{DMT} method.variant=flip", False),
        ("dmt-naive", f"{DMT} method.variant=naive", False),
        (
            "dmt-online",
            f"method=dmt {PHASES} {STARTED} method.partners=1 method.variant=online method.threshold=0.3",
            False,
        ),
        ("dmt-alone", f"method=dmt {PHASES} {STARTED} method.partners=1", False),
        ("dmt-gammas", f"{DMT} method.gamma_agree=3 method.gamma_disagree=0 method.report=a", False),
        ("dmt-lengths", f"{DMT} method.phase_lr=0.005 method.phase_eval_every=1 method.loss=ohem", False),
        ("dmtc", DMTC, True),
        ("dmtc-seed-1", f"{DMTC} seed=1", False),
        ("dmtc-phases", f"{DMTC} method.contrast.baseline=false method.contrast.phases=true", False),
        (
            "dmtc-both",
            f"{DMTC} method.contrast.phases=true method.contrast.phase_weight=0.3 "
            "method.contrast.ignored_as_class_0=true method.contrast.strong_threshold=0.5",
            False,
        ),
    ]
    given = [
        ("st-given", f"method=st {ST} method.baseline={{runs}}/supervised", "supervised"),
        ("stpp-given", f"method=stpp {ST} method.baseline={{runs}}/supervised-kept", "supervised-kept"),
        ("dmt-given", f"{DMT} method.baseline={{runs}}/dmt method.variant=flip", "dmt"),
        ("from-run", "method=cps init_from={runs}/cps optimizer.lr=0.01 seed=1", "cps"),
    ]
    return [
        Case("supervised", supervised, EVALUATED, tested=True),
        Case("supervised-kept", f"{supervised} method.snapshots=[0.3333333333333333,0.6666666666666666,1.0]"),
        *(Case(name, words, tested=tested) for name, words, tested in rows),
        *(Case(name, words, needs=(former,)) for name, words, former in given),
    ]


def chosen(everything: bool, only: str | None) -> list[Case]:
    """Select cases: the tested ones, all, or those of a pattern with what they need."""
    found = cases()
    if only is not None:
        needed = {name for case in found if fnmatch(case.name, only) for name in (case.name, *case.needs)}
        return [case for case in found if case.name in needed]
    return [case for case in found if case.tested or everything]


def train_words(case: Case, places: dict[str, str]) -> list[str]:
    """Overrides of a case: its own replace those of ``BASE`` of the same key."""
    own = case.words.format(**places).split()
    taken = {word.removeprefix("~").partition("=")[0] for word in own}
    base = [word for word in BASE if word.partition("=")[0] not in taken]
    return [*base, *(word for word in own if not word.startswith("~"))]


def draw_pictures(folder: Path) -> None:
    """Write a folder dataset of pictures of two sizes, drawn by integer arithmetic alone."""
    for index in range(10):
        height, width = ((40, 56), (32, 48))[index % 2]
        rows, columns = np.mgrid[:height, :width]
        mask = np.zeros((height, width), np.uint8)
        top, left = 3 + 2 * index % 11, 5 + 5 * index % 17
        mask[top : top + 12, left : left + 14] = 1
        mask[:, width - 9 - index % 4 : width - 4] = 2
        texture = (rows * 7 + columns * (3 + index) + rows * columns * (index % 3)) % 61
        color = np.array([[90, 120, 60], [200, 60, 80], [60, 90, 220]])[mask]
        pixels = np.clip(color + texture[..., None] - 30, 0, 255).astype(np.uint8)
        for part, values in (("images", pixels), ("masks", mask)):
            name = ("test", "val", "train", "train", "train")[index // 2]
            path = folder / part / f"{name}-{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    for part in ("test", "val"):
        names = sorted(path.name for path in (folder / "images").glob(f"{part}-*"))
        (folder / f"{part}.txt").write_text("".join(f"{Path(name).stem}\n" for name in names))


@contextmanager
def quiet(path: Path) -> Iterator[None]:
    """Collect the screen of commands in a file, and take away what they have set up to log with."""
    root = logging.getLogger()
    former = list(root.handlers)
    with path.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            yield
        finally:
            for handler in [handler for handler in root.handlers if handler not in former]:
                root.removeHandler(handler)


def call(words: Sequence[str], screen: Path) -> None:
    """Run a command in this process.

    Raises:
        RuntimeError: it failed; the message holds its screen.
    """
    with quiet(screen):
        code = semiseg(list(words))
    if code != 0:
        raise RuntimeError(f"semiseg {' '.join(words)} ended with {code}:\n{screen.read_text()[-3000:]}")


def digest(parts: Iterable[tuple[str, bytes]]) -> str:
    """Half a sha256 of named bytes in the order of their names."""
    total = hashlib.sha256()
    for name, content in sorted(parts):
        total.update(f"{name}:{len(content)}:".encode())
        total.update(content)
    return total.hexdigest()[:32]


def tensor_parts(prefix: str, values: Any) -> Iterator[tuple[str, bytes]]:
    """All tensors of nested dicts and lists by their path, with type and shape."""
    if isinstance(values, Tensor):
        plain = values.detach().contiguous().cpu()
        name = f"{prefix}|{plain.dtype}|{tuple(plain.shape)}"
        yield name, plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from tensor_parts(f"{prefix}/{key}", value)
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from tensor_parts(f"{prefix}/{index}", value)


def network_digest(path: Path) -> str:
    """Digest of the weights and buffers of a network; all else that its file says may change."""
    return digest(tensor_parts("", torch.load(path, weights_only=True)["state_dict"]))


def state_digest(path: Path) -> str:
    """Digest of what a training goes on from: weights and moments."""
    state = torch.load(path, weights_only=True)
    moments = state["optimizer"]["state"]
    return digest([*tensor_parts("learner", state["learner"]), *tensor_parts("optimizer", moments)])


def picture_parts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Values of the pixels of all pictures of a folder."""
    for path in sorted(folder.rglob("*.png")):
        pixels = np.asarray(Image.open(path))
        yield f"{path.relative_to(folder)}|{pixels.dtype}|{pixels.shape}", pixels.tobytes()


def read_run(run: Path) -> Result:
    """Read what a run left: networks, pseudo-labels, training state, losses and scores."""
    digests = {}
    for path in sorted(run.glob("stages/*/*.pt")):
        digests[str(path.relative_to(run / "stages"))] = network_digest(path)
    for path in sorted(run.glob("stages/*/labels/*.bin")):
        digests[str(path.relative_to(run / "stages"))] = digest([("", path.read_bytes())])
    if (run / "checkpoints/last.pt").is_file():
        digests["state"] = state_digest(run / "checkpoints/last.pt")
    summary = json.loads((run / "summary.json").read_text())
    digests["reported"] = network_digest(run / summary["checkpoint"])
    numbers: dict[str, list[float]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        for key, value in values.items():
            group, _, name = key.partition("/")
            wanted = group in ("train", "val", "pseudo") and "iou/" not in name
            if wanted and isinstance(value, int | float):
                numbers.setdefault(f"{values['stage']} {key}", []).append(float(f"{value:.6g}"))
    for key in ("miou", "miou_last", "miou_test", "accuracy"):
        if summary.get(key) is not None:
            numbers[f"summary {key}"] = [float(f"{summary[key]:.6g}")]
    return Result(digests, numbers)


def read_command(name: str, out: Path) -> Result:
    """Read what a command wrote: scores, labels and confidences, the ranking."""
    digests, numbers = {}, {}
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        if folder.name in ("labels", "masks", "confidence"):
            digests[f"{name} {folder.name}"] = digest(picture_parts(folder))
    for path in out.rglob("*.csv"):
        if path.name in ("ranking.csv", "images.csv", "confusion.csv"):
            rows = path.read_text().replace(f"{out.parent}/", "")
            rows = without_counts(rows) if path.name == "images.csv" else rows
            digests[f"{name} {path.name}"] = digest([("", rows.encode())])
    for path in out.glob("eval-*.json"):
        values = json.loads(path.read_text())
        scores = [values["miou"], values["accuracy"], *values["iou"].values()]
        numbers[f"{name} scores"] = [float(f"{score:.6g}") for score in scores if score is not None]
    if not digests and not numbers:
        raise RuntimeError(f"{name} wrote nothing that is known: {sorted(out.rglob('*'))}")
    return Result(digests, numbers)


def without_counts(text: str) -> str:
    """Leave out the pixel counts of the classes, which were added after the digests were recorded."""
    table = list(csv.reader(io.StringIO(text)))
    kept = [index for index, name in enumerate(table[0]) if not name.startswith(("true ", "predicted "))]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([row[index] for index in kept] for row in table)
    return written.getvalue()


def results(wanted: Sequence[Case], folder: Path, report: Callable[[str], None] = print) -> dict[str, Result]:
    """Make runs in a folder, one after the other, and read them.

    Args:
        wanted: the runs, each after those that it needs.
        folder: an empty folder.
        report: called with a line about each run.
    """
    places = {"start": str(START), "runs": str(folder / "runs"), "pictures": str(folder / "pictures")}
    draw_pictures(folder / "pictures")
    found: dict[str, Result] = {}
    for case in wanted:
        began = time.process_time()
        run, screen = folder / "runs" / case.name, folder / f"{case.name}.log"
        call(["train", f"run_dir={run}", *train_words(case, places)], screen)
        parts = [read_run(run)]
        for name, words in case.commands:
            out = folder / f"{case.name}-{name}"
            call(words.format(run=run, out=out, **places).split(), screen)
            parts.append(read_command(name, out))
        digests = {key: value for part in parts for key, value in part.digests.items()}
        numbers = {key: value for part in parts for key, value in part.numbers.items()}
        found[case.name] = Result(digests, numbers)
        if not any(case.name in other.needs for other in wanted):
            shutil.rmtree(run)
        report(f"{case.name:<24}{len(digests):>4} digests{time.process_time() - began:>7.2f} s")
    return found


def environment() -> str:
    """Name what the bits of a result depend on: the processor, what it is told to use, and who computes."""
    facts: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    for line in info.read_text().split("\n\n")[0].splitlines() if info.is_file() else ():
        key, _, value = line.partition(":")
        facts[key.strip()] = value.strip()
    flags = [flag for flag in facts.get("flags", "").split() if flag.startswith(("avx", "amx", "fma"))]
    packages = ("torch", "numpy", "opencv-python-headless", "albumentations", "pillow")
    return ", ".join(
        [
            " ".join(facts.get(key, "?") for key in ("vendor_id", "cpu family", "model")),
            f"flags {hashlib.sha256(' '.join(sorted(flags)).encode()).hexdigest()[:8]}",
            f"torch uses {torch.backends.cpu.get_cpu_capability()}",
            f"oneDNN up to {os.environ.get('ONEDNN_MAX_CPU_ISA', 'ALL')}",
            *(f"{package} {metadata.version(package)}" for package in packages),
        ]
    )


@dataclass(frozen=True)
class Tolerance:
    """How far results of two processors may lie apart.

    Args:
        first: relative change of the first of several losses.
        later: relative change of the others.
        score: absolute change of a share of pixels or images.
    """

    first: float
    later: float
    score: float

    def allows(self, key: str, index: int, old: float, new: float) -> bool:
        """Whether two numbers, the ``index``-th of their kind, are nearly equal."""
        share = self.later if index else self.first
        limit = share * max(abs(old), 0.01) if "loss" in key else self.score * max(1, abs(old))
        return abs(old - new) <= limit


STEADY = Tolerance(first=0.005, later=0.005, score=0.03)
RESTLESS = Tolerance(first=0.005, later=0.05, score=0.15)
"""Of runs whose pseudo-labels come from random networks, where all classes are nearly equal, or that round much."""

EXACT = Tolerance(first=0, later=0, score=0)


def tolerance(name: str) -> Tolerance:
    """How far results of a case may lie apart."""
    words = {case.name: case.words for case in cases()}[name]
    return RESTLESS if "method=cps" in words or "bf16" in words else STEADY


def unequal_numbers(name: str, recorded: Result, now: Result, allowed: Tolerance) -> list[str]:
    """Name losses and scores that differ; what is logged now beside the recorded ones may be anything."""
    faults = []
    for key, before in sorted(recorded.numbers.items()):
        after = now.numbers.get(key, [])
        if len(before) != len(after):
            faults.append(f"{name}: {key}: {before} recorded, {after} now")
            continue
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            if not allowed.allows(key, index, old, new):
                faults.append(f"{name}: {key}: {old} recorded, {new} now (number {index + 1})")
    return faults


def unequal_digests(name: str, recorded: dict[str, str], now: Result) -> list[str]:
    """Name what differs in a bit."""
    keys = sorted({*recorded, *now.digests})
    return [
        f"{name}: {key}: {recorded.get(key)} recorded, {now.digests.get(key)} now"
        for key in keys
        if recorded.get(key) != now.digests.get(key)
    ]


@dataclass(frozen=True)
class Recorded:
    """The content of the file.

    Args:
        numbers_of: the environment of the losses and scores.
        numbers: losses and scores by case.
        digests: by environment, then by case.
    """

    numbers_of: str
    numbers: dict[str, dict[str, list[float]]]
    digests: dict[str, dict[str, dict[str, str]]]


def read_recorded() -> Recorded:
    """Read the file; without one nothing is recorded."""
    if not RECORDED.is_file():
        return Recorded(environment(), {}, {})
    return Recorded(**json.loads(RECORDED.read_text()))


def write_recorded(found: dict[str, Result]) -> None:
    """Write results beside those of other environments; losses and scores are those of the first one."""
    recorded, here = read_recorded(), environment()
    for name, result in found.items():
        recorded.digests.setdefault(here, {})[name] = result.digests
        if here == recorded.numbers_of:
            recorded.numbers[name] = result.numbers
    RECORDED.write_text(json.dumps(vars(recorded), indent=0, sort_keys=True) + "\n")


def faults(found: dict[str, Result]) -> tuple[list[str], str | None]:
    """Compare with the file.

    Returns:
        What differs, and why digests were not compared; None where they were.
    """
    recorded, here = read_recorded(), environment()
    digests = recorded.digests.get(here)
    differing = []
    for name, result in found.items():
        if name not in recorded.numbers:
            differing.append(f"{name}: nothing is recorded")
            continue
        if digests is not None and name in digests:
            differing += unequal_digests(name, digests[name], result)
        allowed = EXACT if here == recorded.numbers_of else tolerance(name)
        differing += unequal_numbers(name, Result({}, recorded.numbers[name]), result, allowed)
    if digests is None:
        return differing, f"no digests are recorded for {here}"
    return differing, None


def main(arguments: Sequence[str] | None = None) -> int:
    """Record or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("check", "record", "list"))
    parser.add_argument("--all", action="store_true", help="all runs, not only those that the tests make")
    parser.add_argument("--only", metavar="PATTERN", help="runs of such a name")
    given = parser.parse_args(arguments)
    wanted = chosen(given.all, given.only)
    if given.action == "list":
        print("\n".join(f"{case.name:<24}{case.words}" for case in wanted))
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="same-results-") as folder:
        os.environ["SEMISEG_CACHE"] = str(Path(folder, "cache"))
        found = results(wanted, Path(folder))
    if given.action == "record":
        write_recorded(found)
        return 0
    differing, skipped = faults(found)
    print("\n".join(differing))
    print(f"{len(found)} runs, {len(differing)} differences" + (f"; {skipped}" if skipped else ""))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
