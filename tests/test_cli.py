"""The command line from outside: help, exit codes, real runs in subprocesses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from processes import Command
from semiseg import __version__
from semiseg import app as train
from semiseg.cli import main
from semiseg.errors import Interrupted, RunFailed, UserError

SMALL = (
    "dataset.train=16",
    "dataset.val=2",
    "dataset.test=0",
    "dataset.size=32",
    "trainer.crop_size=32",
    "split=1/4",
    "debug=smoke",
    "trainer.iterations=2",
    "backbone.width=4",
)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def semiseg(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "semiseg", *words]
    return subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)


def test_help_is_fast_and_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom semiseg.cli import main\ncode = main(['--help'])\n"
        "assert 'torch' not in sys.modules\nassert 'wandb' not in sys.modules\nsys.exit(code)"
    )
    seconds = []
    for _ in range(2):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        after = os.times()
        # Not the time on the clock, in which other processes work too.
        seconds.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 1
    for text in (
        "train",
        "eval",
        "camvid",
        "deeplabv3plus_cps",
        "stpp",
        "examples:",
        "run_dir=RUN",
        "--plan",
    ):
        assert text in done.stdout


def test_help_lists_options_of_the_working_directory(capsys: pytest.CaptureFixture[str]) -> None:
    Path("method").mkdir()
    Path("method/mine.yaml").write_text("name: mine\n")
    assert main(["train", "--help"]) == 0
    assert "mine" in capsys.readouterr().out


def test_version_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert main([]) == 2
    assert main(["trian"]) == 2
    assert "Did you mean train?" in capsys.readouterr().err
    assert main(["train", "-m", "--plan"]) == 2
    assert main(["train", "--resolve"]) == 2
    assert main(["eval"]) == 2
    assert main(["eval", "no_such_run"]) == 2
    assert main(["eval", "--help"]) == 0


def test_nothing_is_said_to_be_saved_before_a_run_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(words: list[str]) -> int:
        raise Interrupted("SIGTERM", 143)

    monkeypatch.setattr("semiseg.cli.train.main", run)
    assert main(["train"]) == 143
    assert capsys.readouterr().err == "semiseg: stopped: SIGTERM.\n"


def test_printed_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--cfg", "job", "seed=3"]) == 0
    screen = capsys.readouterr().out
    assert "seed: 3" in screen
    assert "crop_size: ${trainer.crop_size}" in screen
    assert main(["train", "trainer.crop_size=48", "--cfg", "job", "--resolve"]) == 0
    assert "    crop_size: 48" in capsys.readouterr().out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("a bad file"), 2),
        (Interrupted("SIGTERM", 143), 143),
        (Interrupted("trainer.max_time reached", 75), 75),
        (KeyboardInterrupt(), 130),
        (RunFailed("the loss is not finite"), 1),
        (RuntimeError("a crash"), 1),
        (BrokenPipeError("of a worker"), 1),
        (PermissionError("of nothing that is named"), 1),
        (PermissionError(13, "Permission denied", "secret/a.png"), 2),
        (OSError(28, "No space left on device"), 2),
        (OSError(5, "Input/output error"), 1),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(words: list[str]) -> int:
        raise error

    monkeypatch.setattr("semiseg.cli.train.main", run)
    assert main(["train"]) == code
    crashed = code == 1 and not isinstance(error, RunFailed)
    assert ("Traceback" in capfd.readouterr().err) == crashed


@pytest.mark.parametrize("name", ["0", "nan"])
def test_run_dir_that_yaml_takes_for_a_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(train, "run", lambda cfg, overrides, plan_only: seen.append(cfg.run_dir))
    Path("local.yaml").write_text(f"run_dir: {name}\n")
    assert main(["train"]) == 0
    Path("local.yaml").unlink()
    assert main(["train", f"run_dir={name}", "seed=1"]) == 0
    assert seen == [name, name]


def test_printed_config_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("7").mkdir()
    assert main(["train", "--cfg", "job", "method=st", "seed=5"]) == 0
    Path("7/run.yaml").write_text("defaults: [schema, {hydra: default}, _self_]\n" + capsys.readouterr().out)
    assert main(["train", "--cfg", "job", "run_dir=7"]) == 0
    screen = capsys.readouterr().out
    assert "seed: 5" in screen
    assert "SelfTraining" in screen


def test_what_training_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def run(cfg: object, overrides: list[str], plan_only: bool) -> float:
        seen.update(cfg=cfg, overrides=overrides, plan_only=plan_only)
        return 0.0

    monkeypatch.setattr(train, "run", run)
    assert main(["train", "--plan", "seed=2", "split=1/4"]) == 0
    assert (seen["overrides"], seen["plan_only"]) == (["seed=2", "split=1/4"], True)
    cfg = seen["cfg"]
    assert cfg.name == "shapes-1of4-every0-tiny-deeplabv3plus-cutmix_seg-s2"
    assert cfg.run_dir.startswith(f"runs/{cfg.name}/")
    assert cfg.trainer.threads >= 1


def test_output_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = []

    def run(words: list[str]) -> int:
        for _ in range(3):
            print("x" * 100_000, flush=True)
            sys.stdout.write("y")
        finished.append(os.isatty(sys.stdout.fileno()))
        return 0

    monkeypatch.setattr("semiseg.cli.train.main", run)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        assert main(["train"]) == 0
        assert sys.stdout is unread
    assert finished == [False]


@pytest.mark.slow
def test_run_resume_and_run_again() -> None:
    done = semiseg("train", "method=supervised", *SMALL, "run_dir=r")
    assert done.returncode == 0, done.stderr
    summary = json.loads(Path("r/summary.json").read_text())
    assert Command("train", "run_dir=r").finish()[0] == 0
    code, screen = Command("train", "run_dir=r", "seed=1").finish()
    assert code == 2
    assert "seed: 0 there, 1 now" in screen
    code, screen = Command("train", "--config-dir", "r", "--config-name", "run", "run_dir=again").finish()
    assert code == 0, screen
    assert json.loads(Path("again/summary.json").read_text())["miou"] == summary["miou"]


OWN_METHOD = """
from semiseg.data.epochs import labeled
from semiseg.methods.supervised import SupervisedLearner


class Mine:
    needs_unlabeled = False

    def __init__(self, *, extra: int):
        self.extra = extra

    def run(self, lab):
        streams = labeled(lab.split.labeled, lab.augment.weak, lab.trainer.batch_size + self.extra, lab.budget)
        return lab.fit("mine", SupervisedLearner(lab.network("model")), streams).selected
"""


@pytest.mark.slow
def test_method_from_the_working_directory() -> None:
    Path("method").mkdir()
    Path("method/mine.yaml").write_text("name: mine\n_target_: mine.Mine\nextra: 1\n")
    Path("mine.py").write_text(OWN_METHOD)
    done = semiseg("train", "method=mine", *SMALL, "run_dir=r")
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("r/summary.json").read_text())["method"] == "mine"
    code, screen = Command("train", "method=mine", "method.extr=3").finish()
    assert code == 2
    assert "Did you mean extra?" in screen


@pytest.mark.slow
def test_plan() -> None:
    code, screen = Command("train", "--plan", *SMALL).finish()
    assert code == 0, screen
    assert "iterations" in screen
