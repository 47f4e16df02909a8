"""The sweep file of the documentation, expanded by wandb's own agent, and what wandb keeps of such a run."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from semiseg.cli import main as cli

DOCS = Path(__file__).parents[2] / "docs"
SWEEP = DOCS / "wandb_sweep.yaml"
SMALL = ("debug=smoke", "dataset.train=16", "dataset.val=3", "dataset.test=2", "dataset.size=48")


@pytest.fixture
def expanded(monkeypatch, tmp_path):
    """Give, for the values of a trial, the words and the variables that wandb's agent starts it with."""
    import wandb
    import wandb.wandb_agent as agents

    # wandb reads the environment once a process.
    wandb.teardown()
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    started = []

    class Started:
        def __init__(self, **given):
            started.append((given["command"], given["env"]))

    monkeypatch.setattr(agents, "AgentProcess", Started)
    sweep = yaml.safe_load(SWEEP.read_text())

    def expand(**values):
        agent = object.__new__(agents.Agent)
        agent._sweep_command = list(sweep["command"])
        agent._function, agent._in_jupyter, agent._forward_signals = None, False, False
        agent._run_processes = {}
        arguments = {key: {"value": value} for key, value in values.items()}
        agent._command_run({"run_id": "trial123", "program": sweep["program"], "args": arguments})
        return started[-1]

    yield expand
    wandb.teardown()


def test_every_trial_is_a_command_line_of_ours(expanded, capsys):
    parameters = yaml.safe_load(SWEEP.read_text())["parameters"]
    grid = [
        dict(zip(parameters, values, strict=True))
        for values in itertools.product(*(each["values"] for each in parameters.values()))
    ]
    assert len(grid) == 18
    for values in (grid[0], grid[-1]):
        words, _ = expanded(**values)
        assert words[:3] == ["/usr/bin/env", "semiseg", "train"]
        assert [f"{key}={value}" for key, value in values.items()] == words[3:6]
        capsys.readouterr()
        assert cli([*words[2:], "--cfg", "job", "--resolve"]) == 0
        composed = yaml.safe_load(capsys.readouterr().out)
        assert composed["method"]["name"] == values["method"]
        assert (composed["split"], composed["seed"]) == (values["split"], values["seed"])
        assert composed["tracker"]["mode"] == "online"


def test_the_page_shows_the_file():
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "wandb.md").read_text(), re.DOTALL)
    assert yaml.safe_load(block) == yaml.safe_load(SWEEP.read_text())


def inspected(run):
    """What ``wandb leet inspect`` prints of the offline file of a run, one JSON object a line."""
    (folder,) = (run / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)]
    environment = os.environ | {"WANDB_MODE": "offline"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_wandb_keeps_what_a_dashboard_needs(expanded, tmp_path, monkeypatch):
    words, variables = expanded(method="supervised", split="1/4", seed=1)
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, variables[name])
    monkeypatch.delenv("WANDB_DIR")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "sweep.json").write_text("{}")
    run = tmp_path / "study" / "job"
    assert cli([*words[2:], *SMALL, "tracker.mode=offline", "tracker.samples=0", f"run_dir={run}"]) == 0
    assert (run / "wandb_id").read_text().strip() == "trial123"

    summary = json.loads((run / "summary.json").read_text())
    records = [json.loads(line) for line in inspected(run).splitlines()]
    (begun,) = [record["run"] for record in records if record["type"] == "run"]
    config = begun["config"]["update"]
    # The agent's own values take the place of these groups; our columns have names that no setting has.
    assert config["method"] == "supervised"
    assert config["method_name"] == "supervised"
    assert config["split_fraction"] == 0.25
    assert config["sweep"] == "study"
    assert begun["run_id"] == "trial123"
    assert begun["job_type"] == "train"
    assert begun["run_group"].startswith("shapes-1of4-every0-")
    assert {"shapes", "1/4", "supervised", "sweep:study"} <= set(begun["tags"])
    points = [record["history"]["item"] for record in records if record["type"] == "history"]
    (point,) = [item for item in points if "result/miou" in item]
    assert (point["split_fraction"], point["result/miou"]) == (0.25, summary["miou"])
    steps = {
        record["metric"].get("name"): record["metric"] for record in records if record["type"] == "metric"
    }
    assert steps["result/miou"]["step_metric"] == "split_fraction"
