"""``semiseg train run_dir=RUN``, alone and with keys: what goes on, what is refused, and in which words."""

import json
from pathlib import Path
from typing import Any

import pytest

from semiseg.config.check import Checker
from semiseg.config.compose import Request, render_run_yaml
from semiseg.config.prepare import checked, settle
from semiseg.config.resume import for_resume
from semiseg.errors import UserError

RUN = ("method=st", "seed=5", "trainer.iterations=8", "optimizer.lr=0.05", "trainer.threads=3")


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in runs/fields/first of the working directory."""
    monkeypatch.chdir(tmp_path)
    return begun(Path("runs/fields/first"), *RUN)


def new(*words: str) -> Any:
    return settle(checked(Request(words), Checker(), settings_only=True))


def begun(folder: Path, *words: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(render_run_yaml(new(*words)))
    return folder


def going_on(*words: str) -> Any:
    return settle(checked(for_resume(Request(words)), Checker(), settings_only=True))


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        going_on(*words)
    return str(caught.value)


NOTHING = {
    "typo": ("runs/fields/frist", "Did you mean runs/fields/first?"),
    "typo above": ("runs/feilds/first", "Did you mean runs/fields/first?"),
    "folder above": ("runs/fields", "runs/fields is no run; its run is runs/fields/first."),
    "folder below": ("runs/fields/first/stages", "lies in one: run_dir=runs/fields/first."),
    "empty": ("empty", "empty holds no run."),
}


@pytest.mark.parametrize("kind", NOTHING)
@pytest.mark.parametrize("more", [(), ("trainer.max_time=10", "tracker.mode=disabled")])
def test_a_run_that_is_not_there_is_no_new_one(kind: str, more: tuple[str, ...]) -> None:
    Path("empty").mkdir()
    place, expected = NOTHING[kind]
    said = refusal(f"run_dir={place}", *more)
    assert expected in said
    assert "also say what to train" in said


def test_several_runs_below_are_counted() -> None:
    begun(Path("runs/fields/second"), *RUN)
    assert "it holds 2 runs: runs/fields/first, runs/fields/second" in refusal("run_dir=runs/fields")


def test_a_run_that_was_ended_before_its_settings_were_stored() -> None:
    Path("killed").mkdir()
    Path("killed/overrides.yaml").write_text("[]")
    assert "Start it again with the options in killed/overrides.yaml" in refusal("run_dir=killed")


@pytest.mark.parametrize("words", [("method=cps",), ("seed=1",), ("split=1/4",), ("name=mine",)])
def test_a_new_run_says_what_to_train(words: tuple[str, ...]) -> None:
    request = Request(("run_dir=new", *words))
    assert for_resume(request) == request


def test_a_job_of_a_sweep_may_have_defaults_alone() -> None:
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_text(json.dumps({"jobs": {"job": {}}}))
    request = Request(("run_dir=sweep/job",))
    assert for_resume(request) == request
    assert "holds no run" in refusal("run_dir=sweep/jop")


PLACE = "run_dir=runs/fields/first"
CHANGED = {
    "optimizer.lr=0.02": ["optimizer.lr: 0.05 there, 0.02 now"],
    "seed=6": ["seed: 5 there, 6 now"],
    "trainer.iterations=9": ["trainer.iterations: 8 there, 9 now"],
    "trainer.epochs=2": ["trainer.epochs: null there, 2 now", "trainer.iterations: 8 there, null now"],
    "split=1/4 seed=6": ["seed: 5 there, 6 now", "split: 1/32 there, 1/4 now"],
    "dataset.size=40": ["dataset.size: 96 there, 40 now"],
    "method=cps": ["method.name: st there, cps now"],
    "optimizer=adamw": ["optimizer.name: sgd there, adamw now"],
}


@pytest.mark.parametrize("words", CHANGED)
def test_only_what_was_typed_is_named(words: str) -> None:
    said = refusal(PLACE, *words.split())
    lines = [line.strip() for line in said.splitlines() if " there, " in line]
    assert set(CHANGED[words]) <= set(lines)
    groups = {word.partition("=")[0].partition(".")[0] for word in words.split()}
    assert {line.partition(":")[0].partition(".")[0] for line in lines} <= groups


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("optimizer.lr=0.05",),
        ("seed=5", "method=st"),
        ("method=st",),
        ("optimizer=sgd", "optimizer.lr=0.05"),
    ],
)
def test_the_same_values_go_on(words: tuple[str, ...]) -> None:
    cfg = going_on(PLACE, "trainer.num_workers=2", "tags=[more]", *words)
    assert (cfg.method.name, cfg.seed, cfg.optimizer.lr, cfg.trainer.iterations) == ("st", 5, 0.05, 8)
    assert (cfg.trainer.num_workers, cfg.trainer.threads, list(cfg.tags)) == (2, 3, ["more"])


def test_unknown_keys_are_faults_as_ever() -> None:
    with pytest.raises(UserError, match=r"takes no l\. Did you mean lr\?"):
        checked(for_resume(Request((PLACE, "optimizer.l=1"))), Checker())
