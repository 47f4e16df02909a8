"""How ``semiseg init`` chooses network, size, method and length from what it knows of a dataset."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from semiseg.config.check import Checker
from semiseg.config.compose import Request
from semiseg.config.prepare import checked
from semiseg.config.searchpath import conf_dir, shipped_root
from semiseg.onboard.preset import overrides
from semiseg.onboard.training_choice import Facts, TrainingChoice, choose_training
from semiseg.onboard.training_length import Speed, training_length
from semiseg.onboard.training_numbers import NETWORKS, NUMBERS

PHOTOS = Facts(
    labeled=24,
    unlabeled=300,
    val=6,
    sizes={(640, 480): 330},
    classes=("soil", "wheat", "weed"),
    pixels=(5_000_000, 4_000_000, 100_000),
    holders=(30, 28, 20),
)
"""Photographs that most tests change in one way."""


def settings(choice: TrainingChoice) -> dict[str, Any]:
    return {each.key: each.value for each in choice.settings}


def test_photographs_on_a_cpu() -> None:
    choice = choose_training(PHOTOS)
    values = settings(choice)
    assert choice.groups["backbone"] == "timm"
    assert values["backbone.weights"] == "pretrained"
    assert values["evaluator.scales"] == [0.5]
    low, high = values["augment.weak.resize.low"], values["augment.weak.resize.high"]
    assert low < 0.5 < high
    height, width = values["trainer.crop_size"]
    assert height % 32 == width % 32 == 0
    assert height <= 240
    assert width <= 320
    assert height < width
    assert choice.method == "fixmatch"
    assert {each.key for each in choice.method_settings} > {"threshold_rule", "keep_share"}
    assert "300 unlabeled beside 24 labeled" in choice.report["method"]
    assert choice.warnings == ()


@pytest.mark.parametrize(
    ("gpu", "timm", "backbone"),
    [
        (None, True, "timm"),
        (None, False, "resnet18"),
        (80.0, True, "dinov2_base"),
        (8.0, True, "dinov2_small"),
        (8.0, False, "resnet50"),
    ],
)
def test_network_of_a_machine(gpu: float | None, timm: bool, backbone: str) -> None:
    choice = choose_training(replace(PHOTOS, gpu_gib=gpu, timm=timm))
    assert choice.groups["backbone"] == backbone
    if gpu:
        assert "not measured here" in choice.network_reason
    if not timm:
        assert "with timm installed" in choice.network_reason


@pytest.mark.parametrize("gpu", [None, 8.0, 80.0])
@pytest.mark.parametrize("timm", [True, False])
@pytest.mark.parametrize("side", [96, 640])
def test_every_choice_is_a_valid_config(gpu: float | None, timm: bool, side: int) -> None:
    choice = choose_training(replace(PHOTOS, gpu_gib=gpu, timm=timm, sizes={(side, side): 9}))
    checked(Request(("dataset=shapes", *overrides(choice))), Checker(), settings_only=True)


def test_file_of_weights_replaces_those_that_are_fetched() -> None:
    assert (
        settings(choose_training(replace(PHOTOS, weights="/w/a b.pth")))["backbone.weights"] == "/w/a b.pth"
    )


def test_more_minutes_give_larger_pictures() -> None:
    usual, long = (choose_training(replace(PHOTOS, minutes=each)) for each in (20.0, 90.0))
    assert settings(long)["evaluator.scales"] > settings(usual)["evaluator.scales"]


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [
        ({(320, 213): 9}, 1.0),
        ({(340, 240): 9}, 1.0),
        ({(200, 150): 9}, 1.6),
        ({(140, 140): 9}, NUMBERS.enlarge),
        ({(6000, 4000): 9}, 0.0533),
        ({(640, 480): 5, (480, 640): 4}, 0.5),
    ],
)
def test_size_follows_the_pictures(sizes: dict[tuple[int, int], int], scale: float) -> None:
    assert settings(choose_training(replace(PHOTOS, sizes=sizes)))["evaluator.scales"] == [scale]


def test_crops_have_the_shape_of_the_pictures_and_fit_into_them() -> None:
    def crop(sizes: dict[tuple[int, int], int]) -> tuple[int, int]:
        height, width = settings(choose_training(replace(PHOTOS, sizes=sizes)))["trainer.crop_size"]
        return height, width

    height, width = crop({(480, 640): 9})
    assert height > width
    height, width = crop({(640, 480): 5, (480, 640): 4})
    assert height == width
    height, width = crop({(3000, 200): 9})
    assert height == 32


def test_large_pictures_are_evaluated_few_at_once() -> None:
    small, large = (
        settings(choose_training(replace(PHOTOS, sizes=sizes)))
        for sizes in ({(640, 480): 9}, {(6000, 4000): 9})
    )
    assert "evaluator.batch_size" not in small
    assert large["evaluator.batch_size"] == 1


def test_pictures_of_very_different_sizes_are_said() -> None:
    warnings = choose_training(replace(PHOTOS, sizes={(640, 480): 5, (2560, 1920): 4})).warnings
    assert any("from 640 to 2,560 pixels" in each for each in warnings)


def test_class_that_the_size_loses_is_named() -> None:
    # 4,000 pixels of a class in a picture of 24 megapixels are 11 at the size that is learned.
    facts = replace(PHOTOS, sizes={(6000, 4000): 9}, pixels=(9**12, 9**12, 80_000), holders=(30, 28, 20))
    large, warning = choose_training(facts).warnings
    assert "19 times the sides" in large
    assert "weed (11 pixels)" in warning
    assert "soil" not in warning


def test_tiny_pictures_get_the_tiny_network_and_nothing_to_fetch() -> None:
    tiny = replace(PHOTOS, sizes={(96, 96): 330})
    choice = choose_training(tiny)
    values = settings(choice)
    assert choice.groups == {"backbone": "tiny"}
    assert values["trainer.crop_size"] == [96, 96]
    assert values["evaluator.scales"] == [1.0]
    assert "backbone.weights" not in values
    assert choose_training(replace(tiny, weights="/w/file.pth")).groups["backbone"] == "timm"


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "method"),
    [
        (24, 300, "fixmatch"),
        (24, 0, "supervised"),
        (24, 10, "supervised"),
        (300, 100, "supervised"),
        (1, 50, "fixmatch"),
    ],
)
def test_method_follows_the_unlabeled_images(labeled: int, unlabeled: int, method: str) -> None:
    choice = choose_training(replace(PHOTOS, labeled=labeled, unlabeled=unlabeled))
    assert choice.method == method
    assert ("threshold_rule" in {each.key for each in choice.method_settings}) == (method != "supervised")


def test_limits_of_the_data_are_said() -> None:
    for val in (0, 6):
        assert settings(choose_training(replace(PHOTOS, val=val)))["trainer.select"] == "last"
    assert "trainer.select" not in settings(choose_training(replace(PHOTOS, val=100)))
    tiny = replace(PHOTOS, sizes={(96, 96): 330})
    assert "trainer.select" not in settings(choose_training(tiny))
    for change, words in (
        ({"labeled": 1}, "1 labeled image to learn from"),
        ({"pixels": (5_000_000, 0, 0)}, "one class alone"),
        ({"channels": 10}, "10 channels"),
    ):
        (warning,) = choose_training(replace(PHOTOS, **change)).warnings
        assert words in warning


def test_the_proposed_comparison_without_a_probe_gives_up_its_rounds() -> None:
    for unlabeled, rounds in ((PHOTOS.unlabeled, True), (0, False)):
        choice = choose_training(replace(PHOTOS, channels=4, unlabeled=unlabeled))
        assert ("method.probe_rounds=0" in choice.warnings[0]) is rounds
        assert ("probe_rounds" in {each.key for each in choice.method_settings}) is rounds


def test_length_is_what_fits_into_the_time() -> None:
    speed = Speed(step=1.0, evaluation=2.0, rest=10.0)
    length = training_length(PHOTOS, choose_training(PHOTOS), speed)
    assert length.seconds is not None
    assert 0.9 * 1200 < length.seconds <= 1200
    assert "fits into 20 minutes" in length.reason
    assert length.iterations == 1100 < choose_training(PHOTOS).most


def test_length_is_bounded_by_labels_and_below() -> None:
    choice = choose_training(PHOTOS)
    fast = training_length(PHOTOS, choice, Speed(0.001, 0.0))
    assert fast.iterations == choice.most == NETWORKS["cpu"].passes * 24 // NETWORKS["cpu"].batch
    assert "24 labeled images" in fast.reason
    slow = training_length(PHOTOS, choice, Speed(60.0, 0.0))
    assert slow.iterations == NUMBERS.least
    assert slow.seconds == NUMBERS.least * 60
    assert "too short" in slow.reason


def test_evaluations_cost_little_and_are_few_where_they_are_slow() -> None:
    facts = replace(PHOTOS, minutes=10.0)
    choice = choose_training(facts)
    cheap, dear = (training_length(facts, choice, Speed(1.0, each)) for each in (0.1, 40.0))
    assert round(cheap.iterations / cheap.eval_every) == NUMBERS.evaluations[1]
    assert round(dear.iterations / dear.eval_every) == NUMBERS.evaluations[0]
    assert dear.seconds is not None
    assert dear.seconds <= 600


def test_no_time_and_no_validation_images() -> None:
    facts = replace(PHOTOS, val=0)
    length = training_length(facts, choose_training(facts), None)
    assert length.seconds is None
    assert length.iterations == min(NUMBERS.unmeasured, choose_training(facts).most)
    assert training_length(facts, choose_training(facts), Speed(1.0, 0.0)).iterations > 0


def test_tiny_pictures_are_learned_as_the_drawn_ones():
    pair = yaml.safe_load((conf_dir() / "pairs/shapes-cutmix_seg.yaml").read_text(encoding="utf-8"))
    row = NETWORKS["tiny pictures"]
    assert dict(row.semi_settings) == pair
    trainer = yaml.safe_load((conf_dir() / "pairs/shapes-trainer.yaml").read_text(encoding="utf-8"))
    assert (row.batch, row.unlabeled_batch) == (trainer["batch_size"], trainer["unlabeled_batch_size"])


def test_few_labels_are_learned_as_in_the_presets():
    row, chosen = NETWORKS["cpu"], choose_training(PHOTOS)
    folder = shipped_root() / "experiments"
    presets = {
        name: yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("base/few_labels", "few_labels", "supervised_few_labels")
    }
    base = presets["base/few_labels"]
    assert dict(row.semi_settings) == presets["few_labels"]["method"]
    assert dict(row.supervised_settings) == presets["supervised_few_labels"]["method"]
    assert (
        row.supervised_rate == chosen.supervised_rate == presets["supervised_few_labels"]["optimizer"]["lr"]
    )
    assert row.settings["optimizer.lr"] == settings(chosen)["optimizer.lr"] == base["optimizer"]["lr"]
    assert (row.crop_side, row.batch) == (base["trainer"]["crop_size"], base["trainer"]["batch_size"])


def test_labels_alone_are_learned_at_their_own_rate_where_they_are_few():
    few = choose_training(replace(PHOTOS, unlabeled=0))
    assert settings(few)["optimizer.lr"] == NETWORKS["cpu"].supervised_rate
    assert few.supervised_rate is None
    many = choose_training(replace(PHOTOS, unlabeled=0, labeled=500))
    assert settings(many)["optimizer.lr"] == NETWORKS["cpu"].settings["optimizer.lr"]
    assert choose_training(replace(PHOTOS, labeled=200)).supervised_rate is None
