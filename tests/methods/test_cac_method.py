"""The CAC method: what it makes of a run's settings, and what it refuses."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from semiseg.data.augment import Augment, Photometric
from semiseg.data.cutout import Cutout
from semiseg.data.geometry import LongSide, RandomCrop, ScaleChoice
from semiseg.data.overlap import OverlapPair
from semiseg.data.views import OverlapCrops, Weak
from semiseg.errors import UserError
from semiseg.methods.cac import CAC, HEAD, map_stride
from semiseg.settings import TrainerSettings

A = pytest.importorskip("albumentations")
Make = Callable[..., Any]


@pytest.fixture
def fit(make_lab: Make) -> Make:
    """Run the method on noise and return the lab, its learner and its streams."""

    def run(augment: Augment | None = None, labeled: int = 4, unlabeled: int = 9, **options: Any) -> Any:
        lab = make_lab(labeled=labeled, unlabeled=unlabeled)
        lab.augment = augment or Augment(RandomCrop(8), Photometric([A.ColorJitter(p=1)]), Cutout())
        trainer = {key: options.pop(key) for key in list(options) if key in ("accumulate", "pairs")}
        lab.trainer = TrainerSettings(
            batch_size=2,
            unlabeled_batch_size=trainer.get("pairs", 3),
            accumulate=trainer.get("accumulate", 1),
        )
        options = {"warmup_epochs": 0, "projection": 5, "positive_threshold": 0.1} | options
        assert CAC(**options).run(lab) is lab.fits["train"].selected
        return SimpleNamespace(lab=lab, learner=lab.learners["train"], streams=lab.streams["train"])

    return run


def test_one_fit_with_a_projector_and_a_bank_in_the_size_of_the_maps(fit: Make) -> None:
    found = fit(bank_steps=2)
    assert found.lab.steps == ["train"]
    assert found.learner.model.heads[HEAD].config()["out_channels"] == 5
    # The stub keeps the size of a crop: 8 x 8, averaged to 4 x 4.
    assert found.learner.stride == 2
    assert found.learner.bank.capacity == 3 * 2 * 3 * 16
    assert found.learner.bank.filled == 2 * 3 * 16
    assert fit(downsample=False).learner.stride == 1
    assert fit(downsample=False).learner.bank.capacity == 2 * 2 * 3 * 64


def test_the_bank_holds_whole_steps_under_accumulation_and_selection(fit: Make) -> None:
    assert fit(pairs=4, accumulate=2).learner.bank.capacity == 2 * 2 * 4 * 16
    assert fit(pairs=4, groups=2, selected=7).learner.bank.capacity == 2 * 2 * 2 * 7
    assert fit(pairs=4, groups=2, accumulate=2, selected=7, bank_steps=0).learner.bank.capacity == 2 * 4 * 7


def test_measuring_the_stride_leaves_the_network_as_it_was(make_model: Make) -> None:
    model, twin = make_model(0), make_model(0)
    assert (map_stride(model, True), map_stride(model, False)) == (2, 1)
    assert model.training
    assert all(
        (one == other).all()
        for one, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
    )


def pair_view(found: Any) -> OverlapCrops:
    view = found.streams.streams["unlabeled"].items[0].view
    assert isinstance(view, OverlapCrops)
    return view


def test_crops_are_made_from_the_augmentation_of_the_run(fit: Make) -> None:
    resize, colors = ScaleChoice([0.8, 1.2]), Photometric([A.ColorJitter(p=1)])
    found = fit(Augment(RandomCrop((8, 12), resize, pad_color=(1, 2, 3)), colors, Cutout()))
    view = pair_view(found)
    assert view.pair == OverlapPair((8, 12), resize, 2, pad_color=(1, 2, 3))
    assert view.photometric is colors
    batch = found.streams.batch(found.lab.dataset, 0, "train", 3)["unlabeled"]
    assert batch["image_1"].shape == (3, 3, 8, 12)
    assert not (batch["box_1"] % 2).any()


def test_crops_of_an_augmentation_without_scaling_keep_the_size(fit: Make) -> None:
    view = pair_view(fit(Augment(RandomCrop(8, resize=None))))
    assert view.pair.resize == LongSide(None, 1.0, 1.0)
    assert view.photometric is None


def test_configured_crops_are_taken_as_they_are(fit: Make) -> None:
    crops = OverlapCrops(OverlapPair(8, LongSide(20), stride=4))
    found = fit(Augment(RandomCrop(16), pair=crops))
    assert pair_view(found) is crops
    assert found.learner.bank.capacity == 2 * 2 * 3 * 16


def test_labeled_images_get_colors_on_request(fit: Make) -> None:
    for choice, kind in (("weak", "Weak"), ("strong", "Strong")):
        view = fit(labeled_augment=choice).streams.streams["labeled"].items[0].view
        assert type(view).__name__ == kind


def test_an_epoch_is_a_pass_or_a_fixed_number_and_is_replayed_on_request(fit: Make) -> None:
    assert fit().streams.iterations_per_epoch == 3
    fixed = fit(iterations_per_epoch=1157)
    assert fixed.streams.iterations == 3 * 1157
    for replay in (False, True):
        streams = fit(iterations_per_epoch=12, replay=replay).streams
        batches = [streams.batch(fixed.lab.dataset, 0, "train", step)["labeled"] for step in range(4)]
        again = [
            bool((one["image"] == other["image"]).all())
            for one, other in zip(batches, batches[2:], strict=False)
        ]
        assert again == [replay, replay]


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (Augment(RandomCrop(9)), "trainer.crop_size=9: .*2x2 pixels.*the nearest size is 8"),
        (Augment(RandomCrop((8, 11))), r"trainer.crop_size=\[8, 11\]: .*nearest size is \[8, 12\]"),
        (
            Augment(RandomCrop(8), pair=OverlapCrops(OverlapPair(8, stride=1))),
            "augment.pair.pair.stride=1: .*2 pixels",
        ),
        (Augment(RandomCrop(8), Photometric([A.HorizontalFlip()])), "HorizontalFlip move pixels"),
        (Augment(RandomCrop(8), pair=Weak(RandomCrop(8))), "augment.pair is a Weak: cac compares"),
    ],
)
def test_crops_that_do_not_fit_are_refused(augment: Augment, message: str, fit: Make) -> None:
    with pytest.raises(UserError, match=message):
        fit(augment)


def test_more_selected_cells_than_there_are_are_refused(fit: Make) -> None:
    with pytest.raises(UserError, match=r"method.selected=49: .*has 48 cells;"):
        fit(selected=49)
    with pytest.raises(UserError, match=r"method.selected=17: .*has 16 cells in a group"):
        fit(selected=17, groups=3)


def test_groups_have_to_divide_the_pairs() -> None:
    trainer = TrainerSettings(batch_size=3, unlabeled_batch_size=8)
    assert CAC(groups=4).batch_sizes(trainer) == {
        "trainer.batch_size": 3,
        "trainer.unlabeled_batch_size": 8,
    }
    with pytest.raises(UserError, match=r"method.groups=3: .*unlabeled_batch_size=8"):
        CAC(groups=3).batch_sizes(trainer)
    with pytest.raises(UserError, match=r"method.groups=4: .*trainer.accumulate=4"):
        CAC(groups=4).batch_sizes(TrainerSettings(unlabeled_batch_size=8, accumulate=4))


@pytest.mark.parametrize(
    "arguments",
    [
        {"weight": -0.1},
        {"temperature": 0.0},
        {"positive_threshold": 1.0},
        {"normalizer": "pixels"},
        {"bank_steps": -1},
        {"selected": 0},
        {"warmup_epochs": -1},
        {"groups": 0},
        {"projection": 0},
        {"labeled_augment": "none"},
        {"iterations_per_epoch": 0},
        {"loss": "dice"},
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(arguments))):
        CAC(**arguments)


def test_the_stride_is_found_where_the_network_is(make_model: Any) -> None:
    network = make_model(0).to("meta").train()
    assert (map_stride(network, downsample=False), map_stride(network, downsample=True)) == (1, 2)
    assert network.training
