"""``init_head=probe``: classifiers that begin as a linear probe of the labeled images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg.cli import main
from semiseg.config.check import Checker
from semiseg.config.compose import Request, compose, draft
from semiseg.config.marks import is_harmless, mark_of
from semiseg.config.stored import completed, differing_keys, plain, settings_that_matter
from semiseg.engine import loop
from semiseg.engine.checkpoint import load_bundle
from semiseg.engine.linear_probe import ProbeFit
from semiseg.errors import Interrupted

TINY = (
    "debug=smoke",
    "method=supervised",
    "model=light",
    "split=1/4",
    "dataset.train=16",
    "dataset.val=2",
    "dataset.test=0",
    "dataset.size=32",
    "trainer.crop_size=32",
    "trainer.iterations=1",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.threads=1",
    "trainer.device=cpu",
)
PROBED = "init_head=probe"
STILL = "optimizer.lr=1e-12"
"""A training that moves no weight, so that the result tells the first weights."""
WEIGHT, BIAS = "classifier.weight", "classifier.bias"


def train(run: Path, *overrides: str) -> int:
    chosen = {word.partition("=")[0]: word for word in (*TINY, *overrides)}
    return main(["train", f"run_dir={run}", *chosen.values()])


def state(run: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_bundle(run / "checkpoints/best.pt")["state_dict"]
    return found


def learner(run: Path, name: str) -> dict[str, Tensor]:
    """Weights of a network of the last training state."""
    found = torch.load(run / "checkpoints/last.pt", weights_only=True)["learner"]
    return {key.removeprefix(f"{name}."): value for key, value in found.items() if key.startswith(f"{name}.")}


def alike(one: dict[str, Tensor], other: dict[str, Tensor], *names: str) -> bool:
    return all(torch.allclose(one[name], other[name], atol=1e-6) for name in names or (WEIGHT, BIAS))


def likeness(one: Tensor, other: Tensor) -> float:
    """The correlation of two weights; that of random ones is about 0."""
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def faults(*words: str) -> dict[str, str]:
    return {each.key: str(each) for each in Checker().everything(draft(Request(words)))}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> dict[str, Tensor]:
    """Weights of ``method=probe`` with the decoder of this file's runs."""
    run = tmp_path_factory.mktemp("probe") / "run"
    assert train(run, "method=probe", "method.probe.model=light") == 0
    return state(run)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """A run whose network began as a probe, and was not trained."""
    run = tmp_path_factory.mktemp("begun") / "run"
    assert train(run, PROBED, STILL) == 0
    return run


def test_the_classifier_begins_as_that_of_the_method(begun: Path, probe: dict[str, Tensor]) -> None:
    assert probe[WEIGHT].any()
    assert alike(state(begun), probe)


def test_the_network_of_the_method_is_fitted_once(
    probe: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[ProbeFit] = []
    finish = ProbeFit.finish
    monkeypatch.setattr(ProbeFit, "finish", lambda fit: (fitted.append(fit), finish(fit)))
    assert train(tmp_path / "run", "method=probe", "method.probe.model=light", PROBED) == 0
    assert len(fitted) == 1
    assert alike(state(tmp_path / "run"), probe)


def test_without_it_the_classifier_is_random(tmp_path: Path, begun: Path) -> None:
    assert train(tmp_path / "run", STILL) == 0
    random, probed = state(tmp_path / "run"), state(begun)
    assert not alike(random, probed)
    others = [name for name in random if name.startswith(("backbone", "decoder")) and "running" not in name]
    assert alike(random, probed, *others)


def test_it_may_be_self_trained(begun: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "method=fixmatch", "method.probe_rounds=2", "init_head=probe", STILL) == 0
    assert likeness(state(tmp_path / "run")[WEIGHT], state(begun)[WEIGHT]) > 0.1


@pytest.mark.parametrize("method", ["fixmatch", "mean_teacher"])
def test_the_average_of_a_network_begins_so_too(
    tmp_path: Path, probe: dict[str, Tensor], method: str
) -> None:
    assert train(tmp_path / "run", f"method={method}", PROBED, STILL) == 0
    stored = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)["learner"]
    found = [value for key, value in stored.items() if key.endswith(WEIGHT)]
    assert len(found) == 2
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)
    assert found[0].shape == probe[WEIGHT].shape
    assert found[0][:, :-128].all()
    assert found[0][:, -128:].abs().max() < 1e-6  # of the branch


def test_two_networks_that_teach_each_other_differ(begun: Path, tmp_path: Path) -> None:
    """Both begin as one stored network, whose classifier the first takes; the images of the second weigh otherwise."""
    run = tmp_path / "run"
    assert train(run, PROBED, STILL, "method=cps", f"init_from={begun}") == 0
    first, second = learner(run, "branch_1"), learner(run, "branch_2")
    same = [name for name in first if "running" not in name and not name.startswith("classifier")]
    assert alike(first, second, *same)
    assert alike(first, state(begun))
    assert not torch.allclose(first[WEIGHT], second[WEIGHT], atol=1e-3)
    assert likeness(first[WEIGHT], second[WEIGHT]) > 0.2
    log = (run / "run.log").read_text()
    assert "must not begin equal" in log
    assert "gives the classifier too, in place of init_head" in log


def test_other_classes_than_those_of_the_stored_network_get_a_probe(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other_names.py").write_text(
        "from dataclasses import replace\nfrom semiseg.data.shapes import Shapes\n"
        "class Other(Shapes):\n    def __init__(self, **options):\n        super().__init__(**options)\n"
        "        self.info = replace(self.info, classes=('ground', *self.info.classes[1:]))\n"
    )
    words = ("dataset._target_=other_names.Other", "dataset.name=other", f"init_from={begun}")
    assert train(tmp_path / "run", PROBED, STILL, *words) == 0
    # The same weights and labels; running statistics have changed while these stood still.
    assert likeness(state(tmp_path / "run")[WEIGHT], state(begun)[WEIGHT]) > 0.2
    assert not state(tmp_path / "run")[WEIGHT][:, -128:].abs().max() > 1e-6
    assert (
        "the classifier begins as a probe, because classes differ" in (tmp_path / "run/run.log").read_text()
    )
    assert train(tmp_path / "random", STILL, *words) == 0
    assert abs(likeness(state(tmp_path / "random")[WEIGHT], state(begun)[WEIGHT])) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "method=cps method.partner.backbone=tiny_vit method.partner.model=linear method.partner.model.norm=none",
        "method=st method.student.model=linear method.student.model.norm=none",
        "method=dmt method.ratios=[1.0]",
    ],
)
def test_it_goes_on_where_it_was_stopped(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (*words.split(), PROBED, "trainer.iterations=3", "trainer.checkpoint_every=1")
    assert train(tmp_path / "whole", *given) == 0
    gather, forward, calls = ProbeFit.gather, loop.forward_backward, 0

    def stopped(call: int, function: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Interrupted("SIGTERM", 143)
            return function(*arguments, **options)

        return counted

    # While the last network's probe is fitted (the plan fits too), and in its training.
    for target, name, function, call in (
        (ProbeFit, "gather", gather, 4),
        (loop, "forward_backward", forward, 2),
    ):
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(target, name, stopped(call, function))
            assert train(tmp_path / "parts", *given) == 143
    assert train(tmp_path / "parts", *given) == 0
    first, second = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("", "model"),
        ("model=linear", "model"),
        ("model=light method=cps method.partner.model=pspnet", "method.partner.model"),
        (
            "model=light method=cps method.partner.backbone=tiny_vit method.partner.model=pspnet",
            "method.partner.model",
        ),
    ],
)
def test_a_decoder_that_hides_the_maps_is_a_fault_of_the_config(words: str, key: str) -> None:
    found = faults(PROBED, *words.split())
    assert set(found) == {key}
    assert "init_head=probe fits a linear classifier to maps of the backbone" in found[key]
    assert faults(*words.split()) == {}


def test_it_is_told_with_other_faults_and_for_each_job() -> None:
    found = faults(PROBED, "model=pspnet", "model.channels=8", "trainer.select=worst")
    assert set(found) == {"model", "trainer.select"}
    checker = Checker()
    jobs = [
        ("model=pspnet",),
        ("model=pspnet", PROBED),
        ("model=light", PROBED),
        ("model=pspnet", "method=probe"),
    ]
    found = [len(checker.everything(draft(Request(words)))) for words in jobs]
    assert found == [0, 1, 0, 0]


def test_it_is_a_setting_of_the_training() -> None:
    cfg = compose(Request((PROBED, "model=light")))
    assert mark_of("init_head", cfg).affects == "training"
    assert not is_harmless("init_head", cfg)
    assert set(faults("init_head=zero")) == {"init_head"}


def test_a_run_of_a_version_without_it_is_one_of_random_classifiers() -> None:
    stored = plain(compose(Request(("model=light",))))
    del stored["init_head"]
    assert differing_keys(stored, compose(Request(("model=light",)))) == []
    found = differing_keys(stored, compose(Request(("model=light", PROBED))))
    assert found == [("init_head", "random", "probe")]
    assert completed(stored)["init_head"] == "random"
    assert "init_head" not in settings_that_matter(stored)  # the hash of its steps stays


def test_rounds_of_a_probe_that_is_not_there_are_a_fault_of_the_config() -> None:
    found = faults("method=fixmatch", "method.probe_rounds=2", "optimizer.lr=-1")
    assert set(found) == {"method.probe_rounds", "optimizer.lr"}
    assert "init_head=probe" in found["method.probe_rounds"]
    assert faults("method=fixmatch", "method.probe_rounds=2", "init_head=probe", "model=light") == {}
