"""Every option and preset that comes with semiseg composes, passes the checks and can be built."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from semiseg.config import build
from semiseg.config.build import DECODER_ARGUMENTS
from semiseg.config.check import Checker
from semiseg.config.compose import Draft, Request, complete_components, compose, draft
from semiseg.config.searchpath import conf_dir, options, shipped_root
from semiseg.config.targets import locate
from semiseg.contracts.dataset import DatasetInfo
from semiseg.declare import declared, fits
from semiseg.settings import COMPONENTS, PRESETS, RECORDS

EXTRA = {
    **{
        ("backbone", f"resnet{name}"): ("backbone.weights=none",)
        for name in ("18", "34", "50", "101", "50s", "101s", "101_caffe")
    },
    ("backbone", "timm"): ("backbone.name=resnet18", "backbone.weights=none"),
    **{
        ("backbone", f"dinov2_{size}"): ("backbone.weights=none", "model=dpt", "trainer.crop_size=98")
        for size in ("small", "base", "large", "giant")
    },
    **{
        ("backbone", option): ("backbone.weights=none", "model=dpt")
        for option in ("dinov3_small", "dinov3_base", "dinov3_large", "clip_vit_base", "mae_vit_base")
    },
    ("backbone", "vit"): ("backbone.network=vit_small_patch16_224", "backbone.weights=none", "model=linear"),
    ("backbone", "tiny_vit"): ("model=dpt",),
    **{
        ("backbone", f"dinov3_convnext_{size}"): ("backbone.weights=none",)
        for size in ("tiny", "small", "base", "large")
    },
    ("model", "dpt"): ("backbone=tiny_vit",),
    ("dataset", "folder"): ("dataset.classes=[a,b]", "dataset.root=data"),
    ("dataset", "camvid"): ("dataset.root=data",),
    ("dataset", "voc"): ("dataset.root=voc",),
    ("dataset", "cityscapes"): ("dataset.root=cityscapes",),
    ("dataset", "ade20k"): ("dataset.root=ade20k",),
    ("dataset", "coco"): ("dataset.root=coco",),
    ("experiments", "camvid_cpu"): ("dataset.root=data", "backbone.weights=none"),
}
LARGER = (
    *(f"dinov2_{size}" for size in ("base", "large", "giant")),
    *(f"dinov3_{size}" for size in ("base", "large")),
    *(f"dinov3_convnext_{size}" for size in ("small", "base", "large")),
    *(f"mit_b{number}" for number in (1, 2, 3, 4, 5)),
    *("resnet34", "resnet101", "resnet101s"),
)
"""Backbones that differ from another option in their size alone: they are built once, and not called."""

GROUPS = (*COMPONENTS, *RECORDS, *PRESETS)
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((conf_dir() / group).glob("*.yaml"))]
OPTIONS += [("experiments", path.stem) for path in sorted((shipped_root() / "experiments").glob("*.yaml"))]
INFO = DatasetInfo("three", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a folder of images that suits camvid and folder, and one for each other file dataset."""
    monkeypatch.chdir(tmp_path)
    for folder in ("train", "trainannot", "val", "valannot", "images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(20):
        for folder in ("train", "trainannot", "images", "masks"):
            (tmp_path / "data" / folder / f"t{number}.png").touch()
    for folder in ("val", "valannot"):
        (tmp_path / "data" / folder / "v.png").touch()
    (tmp_path / "data" / "val.txt").write_text("t0\n")
    for number in range(20):
        for file in (
            f"voc/JPEGImages/{number}.jpg",
            f"voc/SegmentationClassAug/{number}.png",
            f"cityscapes/leftImg8bit/train/a/a_{number}_leftImg8bit.png",
            f"cityscapes/gtFine/train/a/a_{number}_gtFine_labelIds.png",
            f"ade20k/images/training/{number}.jpg",
            f"coco/train2017/{number}.jpg",
            f"coco/masks/{number}.png",
        ):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
    (tmp_path / "voc/ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Segmentation/val.txt").write_text("0\n")
    return tmp_path


def config(group: str, option: str) -> DictConfig:
    request = Request((f"{group}={option}", *EXTRA.get((group, option), ())))
    found: Draft = draft(request)
    if option == "camvid_cpu" or (group, option) == ("dataset", "camvid"):
        Path("data/val.txt").unlink()
    assert (Checker().settings(found) if option in LARGER else Checker().everything(found)) == []
    return compose(request)


def test_all_groups_have_options() -> None:
    assert {group for group, _ in OPTIONS} == set(GROUPS)
    for group, option in OPTIONS:
        assert option in options(group)


@pytest.mark.parametrize(
    ("group", "option"),
    [
        pytest.param(*each, marks=[pytest.mark.slow] if each[1] in LARGER else [])
        for each in OPTIONS
        if each[0] not in PRESETS
    ],
)
def test_option(group: str, option: str) -> None:
    cfg = config(group, option)
    if option != "timm":
        assert cfg[group].name == option
    if group in COMPONENTS:
        assert "_target_" in cfg[group]
    builders = {
        "dataset": lambda: build.dataset(cfg).ids("train"),
        "augment": lambda: (build.augment(cfg).weak, build.augment(cfg).strong),
        "method": lambda: build.method(cfg).run,
        "optimizer": lambda: build.optimizer(cfg).groups,
        "schedule": lambda: build.schedule(cfg).factor(0, 10),
    }
    if group in builders:
        assert builders[group]()
    if group in ("backbone", "model"):
        with torch.device("meta"):
            model = build.network_factory(cfg, INFO)("none")
            if option in LARGER:
                return
            side = 64 // model.size_multiple * model.size_multiple
            assert model(torch.zeros(2, 3, side, side)).shape == (2, 3, side, side)


@pytest.mark.parametrize(("group", "option"), [each for each in OPTIONS if each[0] == "debug"])
def test_preset(group: str, option: str) -> None:
    assert config(group, option).trainer.iterations is not None


@pytest.mark.parametrize("backbone", [("backbone=resnet18",), ("backbone=timm", "backbone.name=resnet18")])
def test_missing_published_weights_are_a_fault(
    backbone: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    faults = Checker().everything(draft(Request(backbone)))
    assert [fault.key for fault in faults] == ["backbone.weights"]
    assert "are not on this machine and could not be fetched (no network)" in faults[0].expected
    faults = Checker().everything(draft(Request((*backbone, "seed=x", "backbone.output_stride=32"))))
    assert [fault.key for fault in faults] == ["seed"]


def test_labeled_images_may_count_as_unlabeled_ones_of_cps() -> None:
    assert Checker().everything(draft(Request(("method=cps", "split=full", "unlabeled=all")))) == []


def test_weights_argument_of_the_factory() -> None:
    factory = build.network_factory(compose(Request(())), INFO)
    assert factory("none").num_classes == 3
    with pytest.raises(Exception, match="takes no weights"):
        factory("imagenet")


def test_albumentations_takes_the_lists_of_the_files() -> None:
    import numpy as np

    strong = build.augment(compose(Request(()))).strong
    image = np.random.default_rng(0).integers(0, 255, (120, 100, 3), dtype=np.uint8)
    sample = strong(image, np.zeros((120, 100), np.uint8), (0, "train", 0))
    assert sample["image"].shape == (96, 96, 3)


def test_null_says_the_same_as_no_key() -> None:
    """Otherwise a run could be gone on with under other settings, see ``settings_that_matter``."""
    text = "".join(path.read_text() for path in conf_dir().rglob("*.yaml"))
    targets = sorted(set(re.findall(r"_target_: (semiseg\S+)", text)))
    assert len(targets) > 25
    unlike = {
        f"{target}.{each.name}"
        for target in targets
        for each in declared(locate(target)).values()
        if fits(None, each.hint) and each.default is not None and not each.required
    }
    # Other images are told by their ids.
    assert unlike == {"semiseg.data.folder.Folder.test"}


def nodes(value: object, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All nodes below a value that name a class of semiseg, with their dotted keys."""
    if isinstance(value, Mapping):
        if str(value.get("_target_", "")).startswith("semiseg."):
            yield key, value
        for name, inner in value.items():
            yield from nodes(inner, f"{key}.{name}")
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from nodes(inner, f"{key}[{index}]")


@pytest.mark.parametrize(
    ("group", "option"), [each for each in OPTIONS if each[0] in COMPONENTS and each[1] not in LARGER]
)
def test_every_key_of_an_option_is_declared_with_a_text(group: str, option: str) -> None:
    found = draft(Request((f"{group}={option}",)))
    assert found.cfg is not None
    complete_components(found.cfg)
    config = OmegaConf.to_container(found.cfg[group], resolve=False)
    for key, node in nodes(config, group):
        known = declared(locate(str(node["_target_"])))
        keys = {name for name in node if name not in ("_target_", "name")}
        silent = {
            name for name in keys | (known.keys() - {"name", *DECODER_ARGUMENTS}) if not known[name].text
        }
        assert not silent, f"{key}: {silent}"


def test_no_file_repeats_a_declared_default() -> None:
    """A value is said once, by its declaration; files hold what differs from it.

    Files of methods also show the choices that papers differ in.
    """
    repeated = []
    for group in {*COMPONENTS, *RECORDS}:
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            body = yaml.safe_load(path.read_text())
            found = [*nodes(body, group), (group, body)] if group in COMPONENTS else [(group, body)]
            for key, node in found:
                target = RECORDS.get(group) or ("_target_" in node and locate(str(node["_target_"])))
                for name, value in node.items() if target else ():
                    setting = declared(target).get(name)
                    same = setting is not None and not setting.required and value == plain(setting.default)
                    if same and type(value) is type(plain(setting.default)) and name != "name":
                        repeated.append(f"{path.relative_to(conf_dir())}: {key}.{name}")
    assert repeated == []


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
