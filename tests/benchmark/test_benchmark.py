"""The benchmarks measure what they say: the passes of a step, and the published operations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from semiseg.benchmark import originals
from semiseg.benchmark.bare_passes import bare, described, recorded
from semiseg.benchmark.data import BATCH, interleaved, pipelines
from semiseg.benchmark.files import cityscapes_tree, voc_tree
from semiseg.benchmark.step_times import info_of, measure
from semiseg.cli import main
from semiseg.config.compose import Request, compose
from semiseg.data.shapes import Shapes
from semiseg.models.segmodel import InputConvention, SegModel

SMALL = (
    "trainer.crop_size=32",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.threads=1",
)


class Backbone(nn.Module):
    channels = (4, 4, 4, 4)
    output_stride = 4
    convention = InputConvention()

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, 4)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x)] * 4


class Decoder(nn.Module):
    out_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.norm(maps[-1])


class Head(nn.Module):
    in_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def config(self) -> dict[str, Any]:
        return {}


class Two(nn.Module):
    """A student with a head, and a teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = (
            SegModel(Backbone(), Decoder(), nn.Conv2d(4, 3, 1), 3) for _ in range(2)
        )
        self.student.attach("side", Head())
        self.teacher.eval()

    def step(self, images: Tensor) -> None:
        with torch.no_grad():
            self.teacher(images)
        features = self.student.features(images)
        logits = self.student.classify(features, (8, 8))
        pooled = nn.functional.avg_pool2d(features, 2)
        (logits.mean() + self.student.heads["side"](pooled).mean()).backward()


def test_the_passes_of_a_step_are_found_and_repeated() -> None:
    torch.manual_seed(0)
    learner, images = Two(), torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    passes = recorded(learner, lambda: learner.step(images))  # type: ignore[arg-type]
    found = [
        (each.kind, each.network is learner.student, each.grad, each.source, each.ends) for each in passes
    ]
    assert found == [
        ("features", False, False, None, True),
        ("classify", False, False, 0, True),
        ("features", True, True, None, False),
        ("classify", True, True, 2, True),
        ("side", True, True, None, True),
    ]
    assert [each.training for each in passes] == [False, False, True, True, True]
    assert described(passes) == "1 with gradient, 1 without"
    assert "features" not in vars(learner.student)
    before = learner.student.decoder.norm.num_batches_tracked.clone()  # type: ignore[union-attr,operator]
    sizes: list[tuple[int, ...]] = []
    learner.student.classifier.register_full_backward_hook(lambda m, i, o: sizes.append(tuple(o[0].shape)))
    bare(
        passes,
        [learner.student, learner.teacher],
        lambda: torch.autocast("cpu", torch.bfloat16, enabled=False),
    )
    assert sizes == [(2, 3, 4, 4)]
    assert learner.student.decoder.norm.num_batches_tracked == before + 1  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in learner.parameters())


PASSES = {
    ("supervised",): ["1 with gradient"],
    ("cps", "method.cutmix=true"): ["4 with gradient, 4 without"],
    ("cps", "method.cutmix=false"): ["4 with gradient"],
    ("stpp",): ["1 with gradient", "1 with gradient"],
    ("dmt",): ["1 with gradient", "1 with gradient"],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", PASSES)
def test_fits_of_methods_are_measured(method: tuple[str, ...]) -> None:
    cfg = compose(Request((f"method={method[0]}", *method[1:], *SMALL)))
    lines: list[str] = []
    found = measure(cfg, 2, lines.append)
    assert [each.passes for each in found] == PASSES[method]
    assert len(lines) == len(found)
    for each in found:
        assert 0.3 < each.multiple < 10
        assert each.step > 0
        assert each.images > 0
        assert each.memory > 2**26


@pytest.mark.slow
def test_the_command_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "speed.md"
    assert main(["benchmark", "method=supervised", *SMALL, "--rounds", "1", "-o", str(report)]) == 0
    text = report.read_text()
    assert text.startswith("    semiseg benchmark method=supervised trainer.crop_size=32")
    assert "| supervised | train | tiny deeplabv3plus 32 | 2 | 1 with gradient |" in text
    assert "Machine: " in text
    assert text in capsys.readouterr().out
    assert main(["benchmark", "--rounds", "0"]) == 2
    assert main(["benchmark", "method=suprvised"]) == 2


def test_classes_are_those_of_the_dataset() -> None:
    for dataset, classes in (("voc", 21), ("cityscapes", 19), ("camvid", 11), ("shapes", 7)):
        assert info_of(compose(Request((f"dataset={dataset}",)))).num_classes == classes
    own = compose(Request(("dataset=folder", "dataset.classes=[a,b]")))
    assert info_of(own).classes == ("a", "b")


def test_rates_are_medians_of_turns() -> None:
    calls: list[str] = []

    def work(name: str, turns: int) -> Any:
        def run(number: int) -> None:
            calls.append(name)
            sum(range(turns))

        return run

    rates = interleaved({"slow": (work("slow", 40_000), 1), "quick": (work("quick", 4000), 1)}, 3, 0.01)
    assert 3 < rates["quick"] / rates["slow"] < 40
    batch = interleaved({"one": (work("one", 20_000), 1), "eight": (work("eight", 20_000), 8)}, 3, 0.01)
    assert 4 < batch["eight"] / batch["one"] < 16


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """An image of 90x60 pixels, its palette mask, and the same as pseudo-labels in an .npy file."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8)).save(folder / "a.jpg")
    mask = Image.fromarray(rng.integers(0, 21, (60, 90), np.uint8))
    mask.putpalette(list(range(256)) * 3)
    mask.save(folder / "a.png")
    np.save(folder / "a.npy", rng.random((60, 90, 2), np.float32))
    return folder / "a.jpg", folder / "a.png", folder / "a.npy"


def test_originals_give_what_their_loaders_got(files: tuple[Path, Path, Path]) -> None:
    image, mask, pseudo = files
    table = torch.arange(256)
    crops = {
        "dmt": (originals.dmt(image, mask, (40, 40), None, None), 40),
        "dmt cityscapes": (originals.dmt(image, mask, (40, 40), (64, 128), table), 40),
        "cps": (originals.cps(image, mask, 48, ["a"] * 10, 25), 48),
        "cps cityscapes": (originals.cps(image, mask, 48, ["a"] * 10, 25, edges=True), 48),
        "stpp": (originals.stpp(image, mask, 33, 80, ["b"], False), 33),
        "stpp strong": (originals.stpp(image, mask, 33, 80, ["b"], True), 33),
        "cac": (originals.cac(image, mask, 32, 80, False), 32),
        "cac cityscapes": (originals.cac(image, mask, 32, 80, True), 32),
    }
    for name, ((picture, label), crop) in crops.items():
        assert (picture.dtype, tuple(picture.shape)) == (torch.float32, (3, crop, crop)), name
        assert (label.dtype, tuple(label.shape)) == (torch.int64, (crop, crop)), name
    picture, both = originals.dmt_pseudo(image, pseudo, (40, 40))
    assert (picture.dtype, both.dtype, tuple(both.shape)) == (torch.float32, torch.float32, (2, 40, 40))
    assert len(originals.cps(image, None, 48, ["a"] * 10, 25)) == 1
    assert [tuple(each.shape) for each in originals.cac_pair(image, mask, 32, 80)] == [
        (3, 32, 32),
        (32, 32),
    ] * 2


@pytest.mark.slow
def test_every_pipeline_runs_on_made_files(tmp_path: Path) -> None:
    source = Shapes(train=6, val=2, test=0)
    ids = source.ids("train")
    trees = {"voc": voc_tree(source, ids[:4], tmp_path / "voc", tmp_path / "cache")}
    trees["cityscapes"], trees["cityscapes_half"] = cityscapes_tree(
        source, ids[:3], tmp_path / "city", tmp_path / "cache"
    )
    assert trees["voc"].dataset.image("00001").shape == (375, 500, 3)
    first = trees["cityscapes"].dataset.ids("train")[0]
    assert trees["cityscapes"].dataset.image(first).shape == (1024, 2048, 3)
    assert trees["cityscapes_half"].dataset.image(first).shape == (512, 1024, 3)
    for each in pipelines():
        tree = trees[each.tree]
        crop = int(each.name.split()[-1].split("x")[-1])
        original = each.original(tree)(0)
        assert original[0].shape[-1] == crop, each.name
        ours = each.ours(tree.dataset, tree.pseudo)(0)
        images = ours["image_1" if "pair" in each.name else "image"]
        assert images.shape[0] == BATCH
        assert images.shape[-1] == crop
        assert ("label" in ours) == (each.labels is not None)
        assert ("confidence" in ours) == (each.labels == "pseudo")
    assert all(size > 1000 for tree in trees.values() for size in tree.mean_bytes())
