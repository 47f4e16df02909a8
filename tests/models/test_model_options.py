"""Networks chosen on the command line: the published ones by keys alone, and runs with each model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from semiseg.cli import main
from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Request, compose, draft
from semiseg.contracts.dataset import DatasetInfo
from semiseg.engine import loop
from semiseg.errors import Interrupted
from semiseg.models.bundle import from_bundle
from semiseg.models.segmodel import SegModel

CLASSES = DatasetInfo("classes", tuple(f"class {k}" for k in range(21)), ((0, 0, 0),) * 21)
PUBLISHED = {
    "DMT": ("backbone=resnet101 backbone.output_stride=8 model=deeplabv2", 8, 44_048_532),
    "ST++ V3+ R50": ("backbone=resnet50 backbone.output_stride=8 model=deeplabv3plus", 8, 40_352_181),
    "ST++ V3+ R101": ("backbone=resnet101 backbone.output_stride=8 model=deeplabv3plus", 8, 59_344_309),
    "ST++ PSP R50": ("backbone=resnet50 backbone.output_stride=8 model=pspnet", 8, 46_592_597),
    "ST++ PSP R101": ("backbone=resnet101 backbone.output_stride=8 model=pspnet", 8, 65_584_725),
    "ST++ V2": (
        "backbone=resnet101 backbone.output_stride=8 model=deeplabv2 model.branches=4 model.init=normal",
        8,
        44_048_532,
    ),
    "CPS R50": (
        "backbone=resnet50 backbone.stem=deep backbone.multi_grid=[1,2,4] model=deeplabv3plus_cps",
        16,
        40_475_957,
    ),
    "CPS R101": (
        "backbone=resnet101 backbone.stem=deep backbone.multi_grid=[1,2,4] model=deeplabv3plus_cps",
        16,
        59_468_085,
    ),
    "CAC R50": ("backbone=resnet50 backbone.multi_grid=[1,2,4] model=deeplabv3plus_cac", 16, 40_352_181),
    "CAC R101": ("backbone=resnet101 backbone.multi_grid=[1,2,4] model=deeplabv3plus_cac", 16, 59_344_309),
}
LAST_DILATIONS = {8: [2, 4, 4], 16: [2, 4, 8]}


def composed(overrides: str) -> DictConfig:
    request = Request((*overrides.split(), "backbone.weights=none"))
    assert Checker().everything(draft(request)) == []
    return compose(request)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_by_config_keys(name: str) -> None:
    overrides, stride, parameters = PUBLISHED[name]
    cfg = composed(overrides)
    with torch.device("meta"):
        model: SegModel = build.network_factory(cfg, CLASSES)()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.backbone.stages[-1].stride == stride
    assert [block.conv2.dilation[0] for block in model.backbone.layer4] == LAST_DILATIONS[stride]
    assert [block.conv2.dilation[0] for block in model.backbone.layer3][:2] == [1, 2 if stride == 8 else 1]


SMALL = (
    "dataset.train=16",
    "dataset.val=2",
    "dataset.test=0",
    "dataset.size=32",
    "split=1/4",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.crop_size=32",
    "trainer.iterations=3",
    "trainer.eval_every=2",
    "trainer.checkpoint_every=2",
    "trainer.log_every=1",
    "trainer.threads=1",
    "tracker.mode=disabled",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "method"),
    [
        ("deeplabv2", "stpp"),
        ("deeplabv3plus_cac", "supervised"),
        ("pspnet", "cps"),
    ],
)
def test_a_run_with_each_model(model: str, method: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", f"run_dir={run}", f"model={model}", f"method={method}", *SMALL]) == 0
    bundle = torch.load(run / "checkpoints/best.pt", weights_only=True)
    assert bundle["config"]["model"]["name"] == model
    network = from_bundle(bundle)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert main(["eval", str(run)]) == 0


@pytest.mark.slow
def test_a_pooling_network_refuses_batches_of_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for model, code in (("deeplabv3plus_cac", 2), ("pspnet", 2), ("deeplabv2", 0)):
        overrides = (f"model={model}", "method=supervised", *SMALL, "trainer.batch_size=1")
        assert main(["train", f"run_dir={tmp_path / model}", *overrides]) == code
        assert ("needs 2 of them" in capsys.readouterr().err) == bool(code)


OWN_METHOD = """
import torch

from semiseg.data.epochs import labeled
from semiseg.contracts.training import LossTerm
from semiseg.methods.supervised import SupervisedLearner
from semiseg.models.heads import Projector, RepresentationHead


class WithHeads(SupervisedLearner):
    def forward(self, batch, progress):
        output = super().forward(batch, progress)
        features = self.model.features(batch["labeled"]["image"])
        for name, head in self.model.heads.items():
            values = head(features)
            output.losses[name] = LossTerm(values.square().sum(), torch.tensor(values.numel()))
        return output


class TwoFits:
    needs_unlabeled = False

    def run(self, lab):
        streams = labeled(lab.split.labeled, lab.augment.weak, lab.trainer.batch_size, lab.budget)
        network = lab.network("model")
        network.attach("projector", Projector(network.feature_channels, 8, 8))
        network.attach("representation", RepresentationHead(network.feature_channels, 8, 8))
        first = lab.fit("first", WithHeads(network), streams)
        network = first.selected
        assert list(network.heads) == ["projector", "representation"]
        return lab.fit("second", WithHeads(network), streams).selected
"""


@pytest.fixture
def own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "method").mkdir()
    module = f"own_{tmp_path.name}"  # another test's module of the same name would stay imported
    (tmp_path / "method/two_fits.yaml").write_text(f"name: two_fits\n_target_: {module}.TwoFits\n")
    (tmp_path / f"{module}.py").write_text(OWN_METHOD)


def state(path: Path) -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return values


@pytest.mark.slow
def test_heads_travel_from_fit_to_fit_and_into_the_report(
    own_method: None, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("method=two_fits", "model=deeplabv2", *SMALL, "trainer.select=last")
    assert main(["train", "run_dir=run", *overrides]) == 0
    first, second = (state(Path(f"run/stages/{stage}/last.pt")) for stage in ("00-first", "01-second"))
    heads = {name for name in first if name.startswith("heads.")}
    # Two convs with bias; a conv, a batch norm with its five entries, a conv with bias.
    assert len(heads) == 4 + 1 + 5 + 2
    tracked = "heads.representation.layers.1.num_batches_tracked"
    assert (first[tracked].item(), second[tracked].item()) == (3, 6)
    assert not torch.equal(
        first["heads.projector.layers.0.weight"], second["heads.projector.layers.0.weight"]
    )
    bundle = torch.load("run/checkpoints/best.pt", weights_only=True)
    assert list(bundle["heads"]) == ["projector", "representation"]
    assert list(from_bundle(bundle).heads) == ["projector", "representation"]
    summary = json.loads(Path("run/summary.json").read_text())
    assert main(["eval", "run"]) == 0
    assert json.loads(Path("run/eval-val-reported.json").read_text())["miou"] == summary["miou"]


@pytest.mark.slow
def test_a_run_with_heads_resumes_to_the_same_weights(
    own_method: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("method=two_fits", *SMALL, "trainer.eval_every=1")
    assert main(["train", "run_dir=whole", *overrides]) == 0
    measure = loop.Trainer.measure
    # Of each fit in the middle.
    for evaluation in (2, 5):
        left = evaluation

        def stopped(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Interrupted("SIGTERM", 143)
            return measure(*arguments, **options)

        run = f"run-{evaluation}"
        with monkeypatch.context() as patch:
            patch.setattr(loop.Trainer, "measure", stopped)
            assert main(["train", f"run_dir={run}", *overrides]) == 143
        assert main(["train", f"run_dir={run}", *overrides]) == 0
        first, second = (state(Path(f"{each}/checkpoints/best.pt")) for each in ("whole", run))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
