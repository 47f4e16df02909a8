"""CPS in merged passes, with the better branch reported, and with OHEM on own images."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from semiseg.cli import main
from semiseg.contracts.training import Progress
from semiseg.engine import loop
from semiseg.errors import Interrupted, UserError
from semiseg.methods.cps import CPS, CPSLearner
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv3plus_cps import DeepLabV3PlusCPS
from semiseg.models.segmodel import SegModel
from semiseg.models.tiny import Tiny
from semiseg.settings import TrainerSettings

Make = Callable[..., Any]
PROGRESS = Progress(iteration=3, total=10, epoch=0, seed=123)
STREAMS = {False: ("labeled", "unlabeled"), True: ("labeled", "unlabeled", "unlabeled_2")}
TINY = (
    "method=cps",
    "trainer.iterations=4",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.crop_size=32",
    "trainer.eval_every=2",
    "trainer.checkpoint_every=1000",
    "trainer.log_every=1",
    "trainer.threads=1",
    "tracker.mode=disabled",
)
SHAPES = ("dataset.train=16", "dataset.val=4", "dataset.test=0", "dataset.size=32", "split=1/4")


def network(seed: int) -> SegModel:
    torch.manual_seed(seed)
    decoder = partial(DeepLabV3PlusCPS, channels=8, low_channels=4, rates=(1, 2))
    return segmentation_model(Tiny(8), decoder, 4)


def learner(cutmix: bool, **options: Any) -> CPSLearner:
    method = CPS(cutmix=cutmix, weight=1.5, **options)
    return CPSLearner(network(0), network(1), method, LabeledLoss(method)).double().train()


@pytest.mark.parametrize("teacher_mode", ["train", "eval"])
@pytest.mark.parametrize("cutmix", [False, True])
def test_merged_passes_equal_separate_ones(cutmix: bool, teacher_mode: Any, make_batch: Make) -> None:
    apart, merged = (learner(cutmix, teacher_mode=teacher_mode, merge=merge) for merge in (False, True))
    for seed in (1, 2):
        batch = make_batch(*STREAMS[cutmix], size=33, seed=seed)
        for index, part in enumerate(batch.values()):  # streams of unlike statistics
            part["image"] = part["image"] // (index + 1)
        expected, observed = apart(batch, PROGRESS), merged(batch, PROGRESS)
        for name, term in expected.losses.items():
            assert torch.equal(observed.losses[name].sum, term.sum), name
            assert torch.equal(observed.losses[name].count, term.count), name
        for name, value in expected.scalars.items():
            assert torch.equal(observed.scalars[name], value), name
        expected.total.backward()
        observed.total.backward()
    for name, buffer in apart.named_buffers():
        assert torch.equal(merged.get_buffer(name), buffer), name
    for name, parameter in apart.named_parameters():
        one, other = merged.get_parameter(name).grad, parameter.grad
        # Sums over two batches and over each of them run in another order.
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12 * other.abs().max().item(), msg=name)


@pytest.mark.parametrize(("cutmix", "passes"), [(False, 1), (True, 2)])
def test_merging_halves_the_passes(cutmix: bool, passes: int, make_batch: Make) -> None:
    counts = [0, 0]

    def count(index: int, *_: Any) -> None:
        counts[index] += 1

    made = learner(cutmix, merge=True)
    for index, branch in enumerate((made.branch_1, made.branch_2)):
        branch.register_forward_pre_hook(partial(count, index))
    made(make_batch(*STREAMS[cutmix], size=33), PROGRESS)
    assert counts == [passes, passes]


def test_merging_needs_streams_of_equal_size() -> None:
    trainer = TrainerSettings(batch_size=4, unlabeled_batch_size=8)
    with pytest.raises(UserError, match=r"method\.merge=true.*batch_size=4.*unlabeled_batch_size=8"):
        CPS(merge=True).batch_sizes(trainer)
    CPS().batch_sizes(trainer)


def test_unknown_reports_are_refused() -> None:
    with pytest.raises(UserError, match=r"report=mean: expected one of: first, better"):
        CPS(report="mean")  # type: ignore[arg-type]


def test_the_better_network_needs_validation_images() -> None:
    split: Any = SimpleNamespace(val=())
    with pytest.raises(UserError, match=r"method\.report=better.*no validation images"):
        CPS(report="better").check_split(split)
    CPS().check_split(split)


def test_both_branches_contend_only_where_asked(make_lab: Make) -> None:
    for report, names in (("first", ["branch_1"]), ("better", ["branch_1", "branch_2"])):
        lab = make_lab(labeled=4, unlabeled=4)
        CPS(report=report).run(lab)  # type: ignore[arg-type]
        assert list(lab.learners["train"].candidates()) == names


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(file: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return state


def is_branch(state: dict[str, torch.Tensor], run: Path, number: int) -> bool:
    """Whether a state dict is that of a branch in the final training state."""
    whole = torch.load(run / "checkpoints/last.pt", weights_only=True)["learner"]
    return all(torch.equal(value, whole[f"branch_{number}.{key}"]) for key, value in state.items())


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[float, float]]], None]:
    """Set what successive evaluations of both branches find."""
    measure = loop.Trainer.measure

    def patch(pairs: list[tuple[float, float]]) -> None:
        queue = [miou for pair in pairs for miou in pair]

        def found(*arguments: Any, **options: Any) -> Any:
            metrics = measure(*arguments, **options)
            return replace(metrics, totals={**metrics.totals, "miou": queue.pop(0)})

        monkeypatch.setattr(loop.Trainer, "measure", found)

    return patch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pairs", "best", "last"),
    [
        ([(0.1, 0.2), (0.3, 0.4)], 2, 2),
        ([(0.1, 0.2), (0.4, 0.3)], 1, 1),
        ([(0.1, 0.2), (float("nan"), 0.4)], 2, 2),
        ([(0.1, 0.1), (0.2, 0.2)], 1, 1),
    ],
)
def test_the_better_branch_is_kept(
    pairs: list[tuple[float, float]], best: int, last: int, tmp_path: Path, results: Any
) -> None:
    results(pairs)
    run = tmp_path / "run"
    assert main(["train", f"run_dir={run}", *TINY, *SHAPES, "method.report=better", "method.merge=true"]) == 0
    assert is_branch(weights(run / "stages/00-train/best.pt"), run, best)
    assert is_branch(weights(run / "stages/00-train/last.pt"), run, last)
    assert is_branch(weights(run / "checkpoints/best.pt"), run, best)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["miou_best"] == max(value for pair in pairs for value in pair if value == value)
    measured = [line for line in records(run) if "val/miou/branch_1" in line]
    assert [line["val/miou/branch_2"] for line in measured] == [pair[1] for pair in pairs]


@pytest.mark.slow
def test_a_resumed_run_keeps_the_branch_that_was_better(
    tmp_path: Path, results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second evaluation is worse for both: the network of the first, of branch 2, has to survive."""
    overrides = [*TINY, *SHAPES, "method.report=better"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    pairs = [(0.1, 0.9), (0.3, 0.2)]
    results(pairs)
    assert main(["train", f"run_dir={whole}", *overrides]) == 0
    results(pairs)
    measure = loop.Trainer.measure
    calls = iter(range(10))

    def stopped(trainer: loop.Trainer, network: nn.Module) -> Any:
        if next(calls) == 2:
            raise Interrupted("SIGTERM", 143)
        return measure(trainer, network)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "measure", stopped)
        assert main(["train", f"run_dir={run}", *overrides]) == 143
    assert main(["train", f"run_dir={run}", *overrides]) == 0
    first, second = weights(run / "checkpoints/best.pt"), weights(whole / "checkpoints/best.pt")
    assert all(torch.equal(first[name], second[name]) for name in first)
    record = json.loads((run / "stages/00-train/step.json").read_text())["result"]
    assert (record["best"]["predictor"], record["best"]["iteration"]) == ("branch_2", 2)
    assert record["last"]["predictor"] == "branch_1"


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """Twelve labeled and four unlabeled pictures of two colors."""
    root = tmp_path / "own"
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(16):
        mask = (generator.random((5, 5)) > 0.5).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        image = mask[..., None] * 120 + generator.integers(0, 100, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / f"{index:02d}.png")
        if index < 12:
            Image.fromarray(mask).save(root / "masks" / f"{index:02d}.png")
    return root


@pytest.mark.slow
def test_cps_with_ohem_on_own_images_by_config(own_images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = (
        "dataset=folder",
        f"dataset.root={own_images}",
        "dataset.classes=[ground,field]",
        "dataset.val=0.25",
        "split=full",
        "method.loss=ohem",
        "model=deeplabv3plus_cps",
    )
    assert main(["train", f"run_dir={run}", *TINY, *overrides]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["method"], summary["dataset"], summary["model"]) == ("cps", "folder", "deeplabv3plus_cps")
    assert summary["split_counts"]["unlabeled"] == 4
    assert weights(run / "checkpoints/best.pt")["classifier.weight"].shape[0] == 2
