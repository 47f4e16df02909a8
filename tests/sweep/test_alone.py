"""A job of a sweep is what the same command makes without one."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from semiseg.cli import main
from sweeping import TINY

RUN = (
    "method=cps",
    "seed=5",
    "split=1/4",
    *(text for text in TINY if not text.startswith("trainer.threads")),
)


@pytest.mark.slow
def test_a_job_gives_the_same_weights_as_the_same_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "sweep_dir=a sweep", *RUN]) == 0
    (job,) = json.loads(Path("a sweep/sweep.json").read_text())["jobs"]
    config = yaml.safe_load(Path("a sweep", job, "config.resolved.yaml").read_text())
    assert main(["train", "run_dir=alone", *RUN, f"trainer.threads={config['trainer']['threads']}"]) == 0
    together, alone = (
        torch.load(folder / "checkpoints/best.pt", weights_only=True)["state_dict"]
        for folder in (Path("a sweep", job), Path("alone"))
    )
    assert together.keys() == alone.keys()
    assert all(torch.equal(together[name], alone[name]) for name in alone)
    capsys.readouterr()
    assert main(["train", "-m", "sweep_dir=a sweep", *RUN]) == 0
    assert "started" not in capsys.readouterr().out
