"""Sweeps: every combination is checked before the first run, and one failing run does not end the others."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from semiseg.config.compose import Request, compose, render_run_yaml
from semiseg.config.faults import ConfigFaults
from semiseg.config.grid import expand
from semiseg.config.multirun import sweep
from semiseg.errors import Interrupted, UserError
from semiseg.runs.directory import RunDir
from semiseg.sweep.job import job_name


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Recorder:
    """Stands in for training: leaves a finished run, or raises where it was told to."""

    def __init__(self, errors: dict[int, Exception] | None = None) -> None:
        self.configs: list[DictConfig] = []
        self.overrides: list[list[str]] = []
        self.errors = errors or {}

    def __call__(self, cfg: DictConfig, overrides: list[str]) -> float:
        self.configs.append(cfg)
        self.overrides.append(overrides)
        if cfg.seed in self.errors:
            raise self.errors[cfg.seed]
        place = RunDir(Path(cfg.run_dir))
        place.path.mkdir(parents=True)
        place.write_summary({"miou": 0.5})
        place.write_status("done")
        return 0.5


def swept(recorder: Recorder, *overrides: str) -> int:
    return sweep(Request((*overrides, "hydra/launcher=basic")), lambda: recorder)


@pytest.mark.slow
def test_grid() -> None:
    recorder = Recorder()
    code = swept(recorder, "method=supervised,cps", "split=1/8,1/4", "trainer.epochs=2", "sweep_dir=s w")
    assert code == 0
    found = {(cfg.method.name, cfg.seed, cfg.split) for cfg in recorder.configs}
    assert len(found) == 4
    assert all((cfg.trainer.epochs, cfg.trainer.iterations) == (2, None) for cfg in recorder.configs)
    folders = {cfg.run_dir for cfg in recorder.configs}
    assert len(folders) == 4
    assert all(Path(folder).parent == Path("s w") for folder in folders)
    assert recorder.configs[0].trainer.threads >= 1
    assert "shapes-1of8-every0-tiny-deeplabv3plus-supervised-s0-" in recorder.configs[0].run_dir
    again = Recorder()
    swept(again, "sweep_dir=s w", "split=1/4", "trainer.epochs=2", "method=cps")
    assert again.configs == []
    assert len(list(Path("s w").glob("*-tiny-*"))) == 4


@pytest.mark.slow
def test_default_sweep_dir() -> None:
    recorder = Recorder()
    assert swept(recorder, "seed=range(0,2)") == 0
    assert [Path(cfg.run_dir).parts[:2] for cfg in recorder.configs] == [("runs", "sweeps")] * 2


@pytest.mark.slow
def test_arguments_of_components_and_own_parameters() -> None:
    Path("method").mkdir()
    Path("method/short.yaml").write_text("name: short\n_target_: semiseg.methods.cps.CPS\n")
    recorder = Recorder()
    assert swept(recorder, "method=short", "method.weight=1,2", "trainer.clip_grad_norm=1") == 0
    assert [cfg.method.weight for cfg in recorder.configs] == [1, 2]


@pytest.mark.slow
def test_preset_with_a_sweep() -> None:
    recorder = Recorder()
    assert swept(recorder, "experiments=study_shapes", "seed=4") == 0
    assert [(cfg.method.name, cfg.seed) for cfg in recorder.configs] == [
        (method, 4) for method in ("supervised", "cps", "stpp")
    ]


@pytest.mark.slow
def test_glob_over_presets() -> None:
    Path("experiments").mkdir()
    for number in (1, 2):
        Path(f"experiments/own_{number}.yaml").write_text(f"# @package _global_\nseed: {number}\n")
    recorder = Recorder()
    assert swept(recorder, "experiments=glob(own_*)") == 0
    assert [cfg.seed for cfg in recorder.configs] == [1, 2]


def test_a_fault_anywhere_refuses_all() -> None:
    recorder = Recorder()
    with pytest.raises(ConfigFaults) as error:
        swept(recorder, "seed=0,x", "split=1/8,9/8", "method.cutmx=true", "run_dir=r")
    keys = {fault.key for fault in error.value.faults}
    assert keys == {"seed", "split", "method.cutmx", "run_dir"}
    assert len(error.value.faults) == 4
    assert recorder.configs == []


def test_runs_that_a_preset_has_changed_since_are_refused() -> None:
    Path("experiments").mkdir()
    Path("experiments/own.yaml").write_text("# @package _global_\noptimizer:\n  lr: 0.5\n")
    overrides = ("experiments=own", "seed=1", "sweep_dir=s")
    cfg = compose(Request(overrides[:2]))
    place = RunDir(Path("s") / job_name(cfg, overrides))
    place.path.mkdir(parents=True)
    (place.path / "run.yaml").write_text(render_run_yaml(cfg))
    Path("experiments/own.yaml").write_text("# @package _global_\noptimizer:\n  lr: 0.25\n")
    recorder = Recorder()
    with pytest.raises(UserError, match=r"optimizer.lr: 0.5 there, 0.25 now(?s:.*)Choose another sweep_dir"):
        swept(recorder, *overrides)
    assert recorder.configs == []


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("hydra.launcher.n_jobs=0", "expected 1 or more"),
        ("hydra.launcher.n_jobs=x", "could not be converted to Integer"),
        ("hydra/launcher=subproces", "subprocess"),
    ],
)
def test_what_is_wrong_with_the_launcher_is_told(override: str, reason: str) -> None:
    with pytest.raises(ConfigFaults, match="(?s)1 fault.*" + "launcher") as error:
        sweep(Request(("seed=1", override)), Recorder)
    assert reason in " ".join(str(error.value).split())


@pytest.mark.slow
def test_failing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder({1: ValueError("a crash"), 2: UserError("a bad file")})
    assert swept(recorder, "seed=1,2,3") == 1
    assert [cfg.seed for cfg in recorder.configs] == [1, 2, 3]
    screen, told = capsys.readouterr()
    assert ": 2 failed, 1 done" in screen
    assert "a crash" in told
    assert "a bad file" in told
    assert swept(Recorder({2: UserError("a bad file")}), "seed=2") == 2


@pytest.mark.slow
def test_interrupt_ends_the_sweep() -> None:
    recorder = Recorder({1: Interrupted("SIGTERM", 143)})
    assert swept(recorder, "seed=1,2") == 143
    assert [cfg.seed for cfg in recorder.configs] == [1]


def test_combinations_are_spelled_as_hydra_spells_them() -> None:
    grid = expand(
        Request(
            ("seed=0,1", "+method=cps", "trainer.crop_size=[8, 16]", "sweep_dir='a b'", "hydra.verbose=true")
        )
    )
    rest = ("method=cps", "trainer.crop_size=[8,16]", "sweep_dir='a b'")
    assert grid.combinations == (("seed=0", *rest), ("seed=1", *rest))
    assert grid.closed
    assert grid.faults == ()


def test_values_that_a_sweeper_chooses_leave_a_grid_open() -> None:
    grid = expand(Request(("seed=0,1", "optimizer.lr=interval(0,1)")))
    assert grid.combinations == (("seed=0",), ("seed=1",))
    assert not grid.closed
    assert [fault.key for fault in grid.faults] == ["optimizer.lr=interval(0,1)"]


def test_a_pattern_that_no_option_fits_is_refused() -> None:
    (fault,) = expand(Request(("method=glob(x*)",))).faults
    assert "There are: adv_semiseg, augseg, cac" in str(fault)


def test_job_name_does_not_depend_on_order_or_place() -> None:
    cfg = compose(Request())
    assert job_name(cfg, ["seed=1", "method=cps", "sweep_dir=a"]) == job_name(cfg, ["method=cps", "seed=1"])
    assert job_name(cfg, ["seed=1"]) != job_name(cfg, ["seed=2"])


@pytest.mark.slow
def test_a_launcher_in_this_process_gets_whole_networks() -> None:
    recorder = Recorder()
    words = ("method=cps", "method.partner.model=pspnet,deeplabv3plus", "method.partner.backbone.width=8")
    assert swept(recorder, *words, "sweep_dir=networks") == 0
    first, second = (cfg.method.partner for cfg in recorder.configs)
    assert (first.model.name, first.model.channels, first.backbone.width) == ("pspnet", 64, 8)
    assert (second.model, second.backbone.name) == (None, "tiny")
    assert len({Path(cfg.run_dir).name for cfg in recorder.configs}) == 2
    assert swept(recorder, *words, "sweep_dir=networks") == 0
    assert len(recorder.configs) == 2
