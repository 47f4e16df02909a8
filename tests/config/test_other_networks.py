"""``method.partner`` and ``method.student`` in a config: options by name, single keys, files, sweeps, faults."""

from pathlib import Path
from typing import Any

import pytest

from semiseg.config.check import Checker
from semiseg.config.compose import Request, compose, draft, render_run_yaml, run_name
from semiseg.config.grid import expand
from semiseg.config.marks import is_harmless, mark_of
from semiseg.config.other_networks import config_of
from semiseg.config.stored import plain, settings_that_matter


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def partner(*overrides: str, role: str = "partner") -> dict[str, Any]:
    """The plain node of the other network, of CPS unless another method is given."""
    method = () if any(each.startswith("method=") for each in overrides) else ("method=cps",)
    found: dict[str, Any] = plain(compose(Request((*method, *overrides))))["method"][role]
    return found


def faults(*overrides: str) -> dict[str, str]:
    return {each.key: str(each) for each in Checker().everything(draft(Request(overrides)))}


def test_no_other_network_unless_it_is_asked_for() -> None:
    for method in ("cps", "dmt", "dmtc", "stpp", "st"):
        cfg = compose(Request((f"method={method}",)))
        assert plain(cfg)["method"]["student" if method.startswith("st") else "partner"] is None
        found = settings_that_matter(cfg)
        assert not any(key.startswith(("method.partner.", "method.student.")) for key in found)


@pytest.mark.parametrize("turned", [False, True])
def test_an_option_by_name_and_keys_of_it(turned: bool) -> None:
    words = ("method.partner.backbone=resnet18", "method.partner.backbone.output_stride=8")
    node = partner("method=cps", *(reversed(words) if turned else words))
    assert (node["backbone"]["depth"], node["backbone"]["output_stride"]) == (18, 8)
    assert node["backbone"]["weights"] == "imagenet"


def test_what_is_not_given_is_that_of_the_run_with_pairs_for_its_own_backbone() -> None:
    # The decoder and the learning rate of tiny are those of pairs/, which resnet18 has none of.
    node = partner("method.partner.backbone=resnet18", "model.low_channels=20")
    assert node["model"]["channels"] == 256
    assert node["model"]["low_channels"] == 20
    assert node["optimizer"]["lr"] == 0.01
    node = partner("method.partner.backbone=resnet18", "optimizer.lr=0.03", "optimizer.momentum=0.5")
    assert node["optimizer"] is None  # all as the run has it
    # And the other way round.
    node = partner("backbone=resnet18", "method.partner.backbone=tiny")
    assert (node["model"]["channels"], node["optimizer"]["lr"]) == (32, 0.05)
    assert partner("method.partner.backbone=resnet18", "method.partner.model=pspnet")["model"] == {
        **plain(compose(Request(("model=pspnet", "backbone=resnet18"))))["model"]
    }


def test_single_keys_change_what_the_run_has() -> None:
    node = partner("method.partner.optimizer.lr=0.02")
    assert node["backbone"] is None
    assert node["model"] is None
    assert (node["optimizer"]["name"], node["optimizer"]["lr"]) == ("sgd", 0.02)
    assert partner("method.partner.optimizer.lr=0.05") == {
        "_target_": "semiseg.settings.OtherNetwork",
        **dict.fromkeys(("backbone", "model", "optimizer")),
    }


def test_presets_name_options_and_the_command_line_changes_them() -> None:
    Path("experiments").mkdir()
    Path("experiments/pair.yaml").write_text(
        "# @package _global_\nmethod:\n  partner:\n    backbone: {name: resnet18, output_stride: 8}\n"
        "    model: pspnet\n"
    )
    node = partner("experiments=pair")
    assert (node["backbone"]["depth"], node["backbone"]["output_stride"]) == (18, 8)
    assert node["model"]["name"] == "pspnet"
    node = partner(
        "experiments=pair", "method.partner.backbone.weights=none", "method.partner.model.channels=8"
    )
    assert (node["backbone"]["output_stride"], node["backbone"]["weights"]) == (8, "none")
    assert (node["model"]["name"], node["model"]["channels"]) == ("pspnet", 8)
    # Another option begins anew, without the keys of the preset for its own.
    other = partner("experiments=pair", "method.partner.backbone=resnet34")["backbone"]
    assert (other["depth"], other["output_stride"]) == (34, 16)
    assert partner("experiments=pair", "method.partner.model=null")["model"]["name"] == "deeplabv3plus"
    assert (
        plain(compose(Request(("method=cps", "experiments=pair", "method.partner=null"))))["method"][
            "partner"
        ]
        is None
    )


def test_own_options_with_a_base() -> None:
    Path("backbone").mkdir()
    Path("backbone/mine.yaml").write_text("defaults: [resnet18, _self_]\nname: mine\noutput_stride: 8\n")
    node = partner("method.partner.backbone=mine")["backbone"]
    assert (node["depth"], node["output_stride"], node["name"]) == (18, 8, "mine")


def test_a_stored_run_composes_to_the_same_and_takes_another_option(workdir: Path) -> None:
    words = ("method=stpp", "method.student.backbone=resnet34", "method.student.optimizer=adamw")
    cfg = compose(Request(words))
    (workdir / "run.yaml").write_text(render_run_yaml(cfg))
    again = compose(Request(config_dir=workdir, config_name="run"))
    assert plain(again) == plain(cfg)
    keys = ("method.student.backbone=resnet18", "method.student.optimizer.lr=0.5")
    changed = compose(Request(keys, config_dir=workdir, config_name="run")).method.student
    assert (changed.backbone.depth, changed.optimizer.name, changed.optimizer.lr) == (18, "adamw", 0.5)


def test_a_sweep_over_networks() -> None:
    words = ("method=cps", "method.partner.backbone=tiny,resnet18,null", "method.partner.model=pspnet")
    grid = expand(Request(words))
    assert grid.faults == ()
    assert grid.closed
    configs = [compose(each) for each in grid.requests(Request(words))]
    assert [config_of(cfg, "partner")["backbone"]["name"] for cfg in configs] == ["tiny", "resnet18", "tiny"]
    assert len({run_name(cfg) for cfg in configs}) == 2  # tiny is that of the run


def test_names_and_marks() -> None:
    cfg = compose(
        Request(("method=cps", "method.partner.backbone=resnet18", "method.partner.optimizer=adamw"))
    )
    assert run_name(cfg).endswith("-cps-partner_resnet18_deeplabv3plus_adamw-s0")
    config = plain(cfg)
    assert mark_of("method.partner.backbone.weights", config).role == "file"
    assert mark_of("method.partner.backbone.name", config).role == "network"
    assert mark_of("method.partner.optimizer.name", config).role == "label"
    assert mark_of("method.partner.optimizer.lr", config).affects == "training"
    assert not is_harmless("method.partner.model.channels", config)


def test_all_faults_are_shown_together() -> None:
    found = faults(
        *("method=cps", "method.partner.backbone=resnet18", "method.partner.backbone.output_stride=7"),
        *("method.partner.model=pspnett", "method.partner.optimizer.lr=-1", "method.partner.optimiser=sgd"),
        *("model.channels=0", "seed=x"),
    )
    assert set(found) == {
        *("method.partner.backbone.output_stride", "method.partner.model", "method.partner.optimizer.lr"),
        *("method.partner.optimiser", "model.channels", "seed"),
    }
    assert "Did you mean pspnet?" in found["method.partner.model"]
    assert "Did you mean optimizer?" in found["method.partner.optimiser"]
    assert "command line" in found["method.partner.model"]


@pytest.mark.parametrize(
    ("words", "key", "part"),
    [
        ("method=supervised method.partner.backbone=resnet18", "method.partner", "takes no partner"),
        ("method=cps method.partner=resnet18", "method.partner", "keys backbone, model and optimizer"),
        ("method=cps method.partner.backbone=[1]", "method.partner.backbone", "name of an option"),
        ("method=cps method.partner.backbone.depth=18", "method.partner.backbone.depth", "takes no depth"),
        ("method=cps method.partner.backbone=timm", "method.partner.backbone.name", "has to be given"),
        ("method=dmt method.partners=1 method.partner.model=pspnet", "method.partner", "method.partners=2"),
        (
            "method=cps method.partner.backbone=resnet18 method.partner.backbone.weights=no.pth",
            "method.partner.backbone.weights",
            "not found",
        ),
        (
            "method=cps method.partner.optimizer.momentum=0 method.partner.optimizer.nesterov=true",
            "method.partner.optimizer.nesterov",
            "momentum above 0",
        ),
        (
            "method=cps model=deeplabv2 method.partner.model=pspnet trainer.batch_size=1",
            "trainer.batch_size",
            "method.partner.model=pspnet",
        ),
    ],
)
def test_faults(words: str, key: str, part: str) -> None:
    assert part in " ".join(faults(*words.split())[key].split())


def test_sizes_suit_both_networks(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(workdir))
    body = "from semiseg.models.tiny import Tiny\n"
    for multiple in (12, 14):
        body += f"class By{multiple}(Tiny):\n    size_multiple = {multiple}\n"
    Path("two_patches.py").write_text(body)
    words = (
        *("method=cps", "backbone._target_=two_patches.By12"),
        "method.partner.backbone._target_=two_patches.By14",
    )
    found = faults(*words, "trainer.crop_size=96")["trainer.crop_size"]
    assert "multiples of 84 pixels" in found
    assert "84 or 168" in found
    assert faults(*words, "trainer.crop_size=84") == {}
