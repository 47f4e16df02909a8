"""Composition: layers, length of a run, names, stored configs and their comparison."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from semiseg.config.build import settings
from semiseg.config.check import Checker
from semiseg.config.compose import (
    Request,
    compose,
    draft,
    new_run_dir,
    render_run_yaml,
    run_name,
    typed,
)
from semiseg.config.environment import GIVEN_THREADS, free_threads
from semiseg.config.faults import ConfigFaults
from semiseg.config.marks import is_harmless
from semiseg.config.prepare import checked, settle
from semiseg.config.resume import for_resume
from semiseg.config.stored import differing_keys, settings_that_matter
from semiseg.errors import UserError
from semiseg.settings import DEFAULT_ITERATIONS, EvaluatorSettings, TrainerSettings

PRESET = "# @package _global_\n"


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def composed(*overrides: str, config_dir: Path | None = None, config_name: str = "train"):  # type: ignore[no-untyped-def]
    request = Request(overrides, config_dir, config_name)
    assert draft(request).faults == []
    return compose(request)


def preset(name: str, text: str) -> None:
    Path("experiments").mkdir(exist_ok=True)
    Path(f"experiments/{name}.yaml").write_text(PRESET + text)


def test_defaults() -> None:
    cfg = composed()
    names = [cfg[key].name for key in ("dataset", "backbone", "model", "method")]
    assert names == ["shapes", "tiny", "deeplabv3plus", "cutmix_seg"]
    assert (cfg.trainer.iterations, cfg.trainer.epochs) == (DEFAULT_ITERATIONS, None)
    assert isinstance(settings(TrainerSettings, cfg.trainer), TrainerSettings)
    assert isinstance(settings(EvaluatorSettings, cfg.evaluator), EvaluatorSettings)


def test_split_is_text() -> None:
    assert composed("split=732").split == "732"
    assert composed("split=1/8").split == "1/8"
    assert composed("split_id=2", "split_family=shuffled").split_id == "2"


def test_small_decoder_for_the_small_backbone_only() -> None:
    small = composed().model.channels
    assert small < composed("backbone=resnet50").model.channels == 256
    assert composed("model=deeplabv3plus_cps").model.channels == small
    assert composed("model.channels=32").model.channels == 32


def test_settings_for_a_dataset_hold_for_it_alone() -> None:
    cfg = composed()
    assert (cfg.method.rampup_epochs, cfg.trainer.batch_size, cfg.trainer.unlabeled_batch_size) == (4, 4, 4)
    # What is typed, and an option of trainer, are stronger.
    assert composed("method.rampup_epochs=1").method.rampup_epochs == 1
    assert composed("trainer.batch_size=6").trainer.batch_size == 6
    Path("trainer").mkdir()
    Path("trainer/mine.yaml").write_text("name: mine\nbatch_size: 5\n")
    assert composed("trainer=mine").trainer.batch_size == 5
    assert composed("method=supervised").trainer.batch_size == 4
    camvid = ("dataset=camvid", "dataset.root=x")
    other = composed(*camvid)
    assert (other.method.name, other.method.rampup_epochs, other.trainer.batch_size) == ("cutmix_seg", 0, 8)
    # Of a dataset and a method of one's own choice, from the working directory.
    Path("pairs").mkdir()
    Path("pairs/camvid-st.yaml").write_text("plus: true\n")
    assert composed(*camvid, "method=st").method.plus is True
    assert composed("method=st").method.plus is False


def test_preset_from_the_working_directory() -> None:
    preset("mine", "defaults:\n  - override /method: supervised\ntrainer:\n  crop_size: 64\n")
    cfg = composed("experiments=mine")
    assert (cfg.method.name, cfg.trainer.crop_size, cfg.augment.weak.crop_size) == ("supervised", 64, 64)
    assert composed("experiments=mine", "trainer.crop_size=32").augment.weak.crop_size == 32


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("trainer: {epochs: 80}", (), (None, 80)),
        ("trainer: {epochs: 80}", ("trainer.iterations=9",), (9, None)),
        ("trainer: {iterations: 80}", ("trainer.epochs=9",), (None, 9)),
        ("trainer: {iterations: 80}", (), (80, None)),
        ("trainer: {epochs: 80}", ("debug=smoke",), (4, None)),
        ("trainer: {epochs: 80}", ("debug=smoke", "trainer.epochs=1"), (None, 1)),
        ("trainer: {epochs: 80}", ("trainer.epochs=null", "trainer.iterations=7"), (7, None)),
        ("seed: 1", ("trainer.iterations=null",), (DEFAULT_ITERATIONS, None)),
    ],
)
def test_one_length(text: str, overrides: tuple[str, ...], expected: tuple[int | None, int | None]) -> None:
    preset("mine", text)
    trainer = composed("experiments=mine", *overrides).trainer
    assert (trainer.iterations, trainer.epochs) == expected


@pytest.mark.slow
def test_local_file_lies_between_options_and_command_line() -> None:
    Path("local.yaml").write_text(
        "dataset: camvid\ndata_roots:\n  camvid: ${oc.env:HOME}/CamVid\ntrainer:\n  num_workers: 3\n  batch_size: 5\n"
    )
    cfg = composed("trainer.batch_size=6")
    assert cfg.dataset.name == "camvid"
    assert cfg.dataset.root == f"{Path.home()}/CamVid"
    assert (cfg.trainer.num_workers, cfg.trainer.batch_size) == (3, 6)
    assert composed("dataset=shapes").dataset.name == "shapes"
    assert composed("dataset.root=/other").dataset.root == "/other"
    Path("local.yaml").unlink()
    assert composed().trainer.num_workers is None


def test_argument_that_no_file_holds() -> None:
    Path("method").mkdir()
    Path("method/short.yaml").write_text("name: short\n_target_: semiseg.methods.cps.CPS\n")
    assert composed("method=short", "method.weight=2.5").method.weight == 2.5


def test_run_name() -> None:
    cfg = composed(
        "split=1/8", "seed=3", "split_family=shuffled", "split_id=1", "backbone=timm", "backbone.name=a/b c"
    )
    assert run_name(cfg) == "shapes-1of8-shuffled1-a_b_c-deeplabv3plus-cutmix_seg-s3"
    assert run_name(composed("name=my/run")) == "my_run"
    parts = new_run_dir(cfg).parts
    assert parts[:2] == ("runs", run_name(cfg))
    assert new_run_dir(cfg) != new_run_dir(cfg)


def test_run_yaml_composes_to_the_same_config(workdir: Path) -> None:
    cfg = settle(
        composed("method=stpp", "split=732", "tags=[a,b]", "trainer.crop_size=[64,48]", "trainer.epochs=3")
    )
    run = workdir / "run dir"
    run.mkdir()
    (run / "run.yaml").write_text(render_run_yaml(cfg))
    again = composed(config_dir=run, config_name="run")
    assert differing_keys(cfg, again) == []
    assert settings_that_matter(cfg) == settings_that_matter(again)
    assert (again.run_dir, again.name, again.tags) == (None, None, ["a", "b"])
    assert render_run_yaml(settle(again)) == render_run_yaml(cfg)
    other = composed("trainer.crop_size=32", "trainer.iterations=5", config_dir=run, config_name="run")
    assert other.augment.weak.crop_size == 32
    assert (other.trainer.iterations, other.trainer.epochs) == (5, None)


def test_run_yaml_keeps_a_given_name() -> None:
    stored = OmegaConf.create(render_run_yaml(settle(composed("name=mine"))))
    assert stored.name == "mine"


def test_stored_method_is_not_exchanged(workdir: Path) -> None:
    (workdir / "run.yaml").write_text(render_run_yaml(composed()))
    faults = draft(Request(("method=supervised",), workdir, "run")).faults
    assert len(faults) == 1
    assert "method=supervised" in faults[0].key


def test_differing_keys() -> None:
    old = composed("trainer.threads=4")
    new = composed(
        "seed=1",
        "augment=none",
        "trainer.num_workers=2",
        "trainer.device=cpu",
        "tracker.mode=disabled",
        "tags=[x]",
    )
    keys = {key: (before, after) for key, before, after in differing_keys(old, new)}
    assert keys.pop("seed") == (0, 1)
    assert keys.pop("augment.name") == ("standard", "none")
    assert {key.split(".")[0] for key in keys} == {"augment"}
    assert [key for key, *_ in differing_keys(old, composed("trainer.threads=2"))] == ["trainer.threads"]


@pytest.mark.parametrize("key", ["tracker", "tracker.mode", "trainer.max_time", "trainer.device", "run_dir"])
def test_harmless(key: str) -> None:
    cfg = composed()
    assert is_harmless(key, cfg)
    assert not is_harmless(f"x.{key}", cfg)


def begun(run: Path, *overrides: str) -> None:
    run.mkdir()
    (run / "run.yaml").write_text(render_run_yaml(settle(composed(*overrides))))


def test_run_dir_alone_takes_the_stored_config(workdir: Path) -> None:
    begun(workdir / "r", "method=st", "seed=5", "trainer.threads=3")
    request = for_resume(Request(("run_dir=r", "trainer.num_workers=2", "tracker.mode=disabled")))
    cfg = settle(compose(request))
    assert (cfg.method.name, cfg.seed, cfg.trainer.threads, cfg.trainer.num_workers) == ("st", 5, 3, 2)
    assert cfg.run_dir == "r"
    new = Request(("run_dir=new", "seed=1"))
    assert for_resume(new) == new


@pytest.mark.slow
def test_run_dir_with_the_whole_command(workdir: Path) -> None:
    begun(workdir / "r", "method=st", "seed=5", "trainer.threads=3")
    request = Request(("run_dir=r", "method=st", "seed=5"))
    assert for_resume(request) == request
    assert settle(compose(request)).trainer.threads == 3
    with pytest.raises(UserError, match=r"(?s)other settings.*seed: 5 there, 6 now"):
        settle(compose(Request(("run_dir=r", "method=st", "seed=6"))))


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semiseg.config.environment.GIVEN_THREADS", "3")
    assert free_threads(1, on_cuda=False) == 3
    monkeypatch.setattr("semiseg.config.environment.GIVEN_THREADS", "")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv("SEMISEG_CORES", raising=False)
    monkeypatch.setattr("semiseg.cores.free_shared_memory", lambda: 2**40)
    assert free_threads(2, on_cuda=False) == 6
    assert free_threads(20, on_cuda=True) == 1
    assert (free_threads(None, on_cuda=False), free_threads(None, on_cuda=True)) == (8, 2)
    assert isinstance(GIVEN_THREADS, str)


def test_interpolations_find_what_only_a_declaration_gives(workdir: Path) -> None:
    """``output_stride`` stands in no file."""
    preset(
        "mine", "trainer:\n  crop_size: ${backbone.output_stride}\n  epochs: '${by:model.dropout,{0.1: 3}}'\n"
    )
    request = Request(("experiments=mine", "backbone=resnet18", "backbone.weights=none"))
    cfg = checked(request, Checker(), settings_only=True)
    assert (cfg.trainer.crop_size, cfg.trainer.epochs, cfg.augment.weak.crop_size) == (16, 3, 16)


def test_interpolations_of_nothing_are_faults(workdir: Path) -> None:
    preset("mine", "trainer:\n  crop_size: ${backbone.nothing}\n")
    with pytest.raises(
        ConfigFaults, match=r"(?s)trainer.crop_size.*mine.yaml.*cannot be resolved.*backbone.nothing"
    ):
        checked(Request(("experiments=mine",)), Checker(), settings_only=True)


@pytest.mark.parametrize(
    "words",
    ["", "method=dmtc backbone=resnet18", "split=732 trainer.max_time=30 name=5 tags=[1,b] evaluator=cac"],
)
def test_a_checked_draft_is_what_composing_with_types_gives(words: str) -> None:
    request = Request(tuple(words.split()))
    assert OmegaConf.to_yaml(typed(draft(request))) == OmegaConf.to_yaml(compose(request))
