"""Runs of ``method=probe``, and of what is done with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import semiseg
from band_pictures import CLASSES as FIELDS
from band_pictures import write_fields
from semiseg import summary
from semiseg.cli import main
from semiseg.config.check import Checker
from semiseg.config.compose import Request, draft
from semiseg.engine import lab
from semiseg.engine.checkpoint import load_bundle
from semiseg.errors import Interrupted

TINY = (
    "debug=smoke",
    "method=probe",
    "split=1/4",
    "seed=0",
    "dataset.train=16",
    "dataset.val=3",
    "dataset.test=2",
    "dataset.size=48",
    "trainer.crop_size=32",
    "trainer.threads=1",
    "trainer.device=cpu",
)
FLAT = """
import numpy as np
from semiseg.contracts.dataset import DatasetInfo

COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))

class Flat:
    '''Images of one class and one size each.'''
    info = DatasetInfo("flat", ("red", "green", "blue", "never"), (*COLORS, (0, 0, 0)))

    def __init__(self, name="flat"):
        pass

    def ids(self, part):
        return tuple(f"{part}-{number:02d}" for number in range({"train": 13, "val": 6}.get(part, 0)))

    def _size(self, image_id):
        return 33 + 8 * (int(image_id[-2:]) % 4), 48

    def image(self, image_id):
        number = int(image_id[-2:])
        noise = np.random.default_rng(number).integers(-15, 16, (*self._size(image_id), 3))
        return (np.array(COLORS[number % 3]) + noise).astype(np.uint8)

    def mask(self, image_id):
        mask = np.full(self._size(image_id), int(image_id[-2:]) % 3, np.uint8)
        mask[:5] = 255
        if image_id == "train-00":
            mask[:] = 255
        return mask
"""


def train(run: Path, *overrides: str) -> int:
    chosen = {word.partition("=")[0]: word for word in (*TINY, *overrides)}
    return main(["train", f"run_dir={run}", *chosen.values()])


def state(file: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_bundle(file)["state_dict"]
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def summed(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return values


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("probe") / "run"
    assert train(folder) == 0
    return folder


@pytest.fixture(scope="module")
def flat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the dataset of ``FLAT``."""
    folder = tmp_path_factory.mktemp("flat")
    (folder / "flat_images.py").write_text(FLAT)
    (folder / "dataset").mkdir()
    (folder / "dataset/flat.yaml").write_text("name: flat\n_target_: flat_images.Flat\n")
    return folder


@pytest.fixture
def flat(flat_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Train on the images of ``FLAT`` and give the summary."""
    monkeypatch.chdir(flat_folder)
    words = [word for word in TINY if not word.startswith(("debug", "dataset", "split"))]
    words += ["dataset=flat", "split=6", "split_family=shuffled", "tracker.mode=disabled"]

    def start(*overrides: str) -> dict[str, Any]:
        chosen = {word.partition("=")[0]: word for word in (*words, *overrides)}
        assert main(["train", f"run_dir={tmp_path / 'run'}", *chosen.values()]) == 0
        return summed(tmp_path / "run")

    return start


def test_a_run_has_all_that_other_runs_have(run: Path, tmp_path: Path) -> None:
    values = summed(run)
    assert (values["method"], values["model"], values["iterations"]) == ("probe", "linear", 0)
    assert 0 < values["miou"] < 1
    assert values["miou_test"] is not None
    assert values["checkpoint_last"] is None
    assert len(list((run / "samples").glob("*.png"))) == 3
    assert same(state(run / "checkpoints/best.pt"), state(run / "stages/00-probe/network.pt"))
    weight = state(run / "checkpoints/best.pt")["classifier.weight"]
    assert weight.any()
    assert [step["name"] for step in json.loads((run / "plan.json").read_text())] == [*("probe", "report")]


def test_it_is_measured_predicted_with_and_loaded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), "-o", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").glob("eval-val-*.json")
    assert json.loads(path.read_text())["miou"] == pytest.approx(summed(run)["miou"], abs=1e-6)
    assert main(["eval", str(run), "--checkpoint", "last"]) == 2
    assert "leave --checkpoint out" in " ".join(capsys.readouterr().err.split())
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    from PIL import Image

    Image.fromarray(pixels).save(pictures / "one.png")
    assert main(["predict", str(run), str(pictures), "-o", str(tmp_path / "predicted")]) == 0
    found = semiseg.load(run, device="cpu").predict(pixels).label
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "predicted/labels/one.png")), found)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "ending"), [("onnx", "onnx"), ("torch", "pt2")])
def test_it_is_exported(run: Path, tmp_path: Path, form: str, ending: str) -> None:
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    assert main(["export", str(run), "-o", str(tmp_path / f"network.{ending}"), "--format", form]) == 0


def test_a_run_that_is_stopped_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any) -> None:
        raise Interrupted("SIGTERM", 143)

    again = tmp_path / "again"
    # Before the network is stored, and after.
    for module in (lab, summary):
        with monkeypatch.context() as patch:
            patch.setattr(module, "save_bundle", stopped)
            assert train(again) == 143
    file = again / "stages/00-probe/network.pt"
    written = file.stat().st_mtime_ns
    assert train(again) == 0
    assert file.stat().st_mtime_ns == written
    assert same(state(run / "checkpoints/best.pt"), state(again / "checkpoints/best.pt"))
    assert summed(run)["miou"] == summed(again)["miou"]


def test_another_run_begins_as_it(run: Path, tmp_path: Path) -> None:
    model = ("model=linear", "model.levels=3", "model.norm=none")
    words = ("method=supervised", "trainer.iterations=1", "optimizer.lr=1e-12", f"init_from={run}")
    assert train(tmp_path / "run", *words, *model) == 0
    first, second = state(run / "checkpoints/best.pt"), state(tmp_path / "run/checkpoints/best.pt")
    for name in ("classifier.weight", "classifier.bias"):
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("baseline", ["method=stpp", "method=dmt"])
def test_it_is_no_baseline_of_training_in_stages(
    run: Path, tmp_path: Path, baseline: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", baseline, f"method.baseline={run}") == 2
    assert "is a run of method=probe" in " ".join(capsys.readouterr().err.split())


def test_the_plan_reads_one_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted: list[int] = []
    from semiseg.models.discriminant import ClassMoments

    add = ClassMoments.add

    def counting(self: ClassMoments, features: Tensor, labels: Tensor, weight: float = 1.0) -> None:
        counted.append(len(labels))
        add(self, features, labels, weight)

    monkeypatch.setattr(ClassMoments, "add", counting)
    assert main(["train", "--plan", *TINY, "method.scales=[1.0]", "split=full"]) == 0
    assert len(counted) == 1
    assert "compute a network without training" in capsys.readouterr().out


def test_self_training_reads_unlabeled_images(run: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "method.rounds=1", "method.threshold=0.1") == 0
    assert not same(state(run / "checkpoints/best.pt"), state(tmp_path / "run/checkpoints/best.pt"))
    assert train(tmp_path / "full", "method.rounds=1", "split=full") == 2


def test_separable_images_of_several_sizes_are_told_apart(flat: Callable[..., dict[str, Any]]) -> None:
    """One of them has no labeled pixel, one class none at all."""
    values = flat("split=full", "method.scales=[1.0]")
    assert values["miou"] == 1.0
    assert values["predicted_pixels"]["never"] == 0


@pytest.mark.parametrize(
    "words",
    [
        "backbone=tiny_vit model=dpt dataset.size=45",
        "backbone=resnet18 backbone.weights=none dataset.size=45",
        "model=deeplabv2 evaluator=slide evaluator.window=32",
        "model=pspnet evaluator=multi_scale",
        "model=segformer evaluator.resize_to=[40,56]",
        "backbone=tiny_vit model=dpt evaluator=slide evaluator.window=64",
        "method.probe.model=light method.temperature=3 method.shrinkage=1",
        "method.probe=null model=light method.scales=[1.0]",
        "split=1",
        "method.rounds=2 evaluator=slide evaluator.window=32",
        "method.probe.backbone=tiny_vit init_head=probe trainer.precision=bf16",
    ],
)
def test_networks_and_evaluations(tmp_path: Path, words: str) -> None:
    assert train(tmp_path / "run", *words.split()) == 0
    assert 0 < summed(tmp_path / "run")["miou"] < 1


def test_temperature_and_light_change_no_label(run: Path, tmp_path: Path) -> None:
    """The branch of ``light`` has the weight 0, and its maps are those of ``linear`` at another scale."""
    assert train(tmp_path / "run", "method.probe.model=light", "method.temperature=7") == 0
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    one, other = (semiseg.load(each, device="cpu").predict(pixels).label for each in (run, tmp_path / "run"))
    assert (one == other).mean() > 0.999


@pytest.mark.parametrize(("channels", "dtype"), [(5, "uint16"), (1, "uint8")])
def test_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, dtype: str) -> None:
    pytest.importorskip("rasterio")
    monkeypatch.chdir(tmp_path)
    root = write_fields(tmp_path / "fields", channels, dtype)
    target = "_target_:semiseg.contracts.dataset.Bands"
    kind = f"{{{target},channels:{channels},dtype:{dtype},mean:{[100] * channels},std:{[50] * channels}}}"
    words = [
        *(f"dataset.root={root}", f"dataset.classes=[{','.join(FIELDS)}]", f"dataset.bands={kind}"),
        *("split=full", "seed=0", "method=probe", "debug=smoke", "trainer.threads=1", "trainer.device=cpu"),
    ]
    assert main(["train", "dataset=folder", f"run_dir={tmp_path / 'run'}", *words]) == 0
    assert summed(tmp_path / "run")["miou"] > 0.5


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("method.probe.model=pspnet", "method.probe.model"),
        ("method.probe.model=linear", "method.probe.model"),
        ("method.probe=null", "model"),
        ("method.probe=null model=linear", "model"),
    ],
)
def test_a_decoder_that_hides_the_maps_is_refused_with_all_other_faults(words: str, key: str) -> None:
    request = Request(("method=probe", *words.split(), "optimizer.nesterov=perhaps"))
    found = {each.key: str(each) for each in Checker().everything(draft(request))}
    assert key in found or "method.probe.model" not in words
    found = {
        each.key: str(each) for each in Checker().everything(draft(Request(("method=probe", *words.split()))))
    }
    assert set(found) == {key}
    assert "method=probe fits a linear classifier" in found[key]
    assert "linear with norm=none" in found[key]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("method.scales=[]", "scales"),
        ("method.shrinkage=1.5", "shrinkage"),
        ("method.temperature=0", "temperature"),
    ],
)
def test_settings_out_of_range(words: str, key: str) -> None:
    faults = Checker().everything(draft(Request(("method=probe", words))))
    assert [each.key for each in faults] == [f"method.{key}"]
