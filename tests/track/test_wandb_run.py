"""What a run is called in wandb, and that its columns need no hand work."""

import json

import pytest
from omegaconf import OmegaConf

from semiseg.contracts.dataset import Split
from semiseg.track.wandb_run import LONGEST_TAG, identity, stored_id

SPLIT = Split(labeled=("a",), unlabeled=("b", "c", "d"), val=("e",))


def config(**changes):
    nodes = {key: {"name": f"{key}-x"} for key in ("dataset", "backbone", "model", "method")}
    usual = {"name": None, "seed": 3, "split": "1/4", "split_family": "every", "split_id": "0", "tags": []}
    return OmegaConf.create({**nodes, **usual, "optimizer": {"lr": 0.1}, **changes})


def test_columns_are_plain_and_numbers_are_numbers(tmp_path):
    env = {"python": "3", "git": {"commit": "abc", "diff": "..."}}
    (tmp_path / "env.json").write_text(json.dumps(env))
    found = identity(config(), SPLIT, tmp_path).config
    assert found["method_name"] == "method-x"
    assert found["dataset_name"] == "dataset-x"
    assert found["backbone_name"] == "backbone-x"
    assert found["model_name"] == "model-x"
    assert found["split_fraction"] == 0.25
    assert found["labeled_images"] == 1
    assert found["seed"] == 3
    assert found["optimizer"] == {"lr": 0.1}
    assert found["split_sha"] == SPLIT.sha256
    assert found["git"] == {"commit": "abc", "dirty": True}
    assert found["env"] == {"python": "3"}
    assert found["sweep"] is None


@pytest.mark.parametrize("text", ["", "[1]", '{"git": {}}'])
def test_a_damaged_description_of_the_machine_is_left_out(tmp_path, text):
    (tmp_path / "env.json").write_text(text)
    found = identity(config(), SPLIT, tmp_path).config
    assert (found["env"], found["git"] or {}) == ({}, {})


def test_a_group_differs_in_the_seed_alone(tmp_path):
    def group(**changes):
        return identity(config(**changes), SPLIT, tmp_path).group

    usual = group()
    assert usual.startswith("dataset-x-1of4-every0-backbone-x-model-x-method-x-")
    assert group(seed=4) == group(seed=5, name="mine") == group(tags=["word"]) == usual
    assert group(init_sha256="a") == group(init_sha256="b", seed=4) != group(init_sha256=None)
    others = [
        group(optimizer={"lr": 0.2}),
        group(split_id="1"),
        group(split_family="shuffled"),
        group(backbone={"name": "resnet50"}),
        group(method={"name": "method-x", "weight": 2}),
    ]
    assert len({usual, *others}) == 6


def test_names_and_tags(tmp_path):
    found = identity(config(tags=["mine", "1/4", ""]), SPLIT, tmp_path)
    assert found.name == "dataset-x-1of4-every0-backbone-x-model-x-method-x-s3"
    assert found.tags == ["dataset-x", "1/4", "method-x", "backbone-x", "model-x", "mine"]
    assert identity(config(name="mine"), SPLIT, tmp_path).name == "mine"


def test_a_second_network_has_columns_and_a_group_of_its_own(tmp_path):
    partner = {"backbone": {"name": "resnet18", "depth": 18}, "model": None, "optimizer": {"name": "adamw"}}
    found = identity(config(method={"name": "method-x", "partner": partner}), SPLIT, tmp_path)
    assert found.config["partner_backbone_name"] == "resnet18"
    assert found.config["partner_optimizer_name"] == "adamw"
    assert "partner_model_name" not in found.config
    assert {"partner.backbone:resnet18", "partner.optimizer:adamw"} <= set(found.tags)
    assert found.group.startswith("dataset-x-1of4-every0-backbone-x-model-x-method-x-partner_resnet18_adamw-")


def test_jobs_of_a_sweep_name_it(tmp_path):
    folder = tmp_path / ("study-" + "x" * 80)
    folder.mkdir()
    (folder / "sweep.json").write_text("{}")
    found = identity(config(), SPLIT, folder / "job")
    assert found.config["sweep"] == folder.name
    # wandb refuses runs with longer tags.
    assert found.tags[-1] == f"sweep:{folder.name}"[:LONGEST_TAG]
    assert identity(config(), SPLIT, tmp_path / "alone").config["sweep"] is None


@pytest.fixture
def no_agent(monkeypatch):
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_the_id_is_kept_for_a_resume(tmp_path, no_agent):
    first = stored_id(tmp_path)
    assert len(first) == 8
    assert first.isalnum()
    assert stored_id(tmp_path) == first


def test_an_agent_gives_the_id(tmp_path, no_agent, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "given123")
    assert stored_id(tmp_path / ".") != "given123"
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    assert stored_id(tmp_path) == "given123"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    monkeypatch.delenv("WANDB_RUN_ID")
    assert stored_id(tmp_path) == "given123"
