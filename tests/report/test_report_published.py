"""Published numbers: that presets name them in a form that the report reads, and only beside runs they hold for."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from written_runs import write_run

from semiseg.config.check import Checker
from semiseg.config.compose import Request, compose, draft
from semiseg.config.marks import is_harmless
from semiseg.config.searchpath import options
from semiseg.report.aggregate import study
from semiseg.report.records import collect
from semiseg.report.study import Published

PRESETS = Path(__file__).parents[2] / "experiments"
ROW = {
    "source": "their paper",
    "for": {"method": "cps", "backbone": "tiny"},
    "miou": {"1/8": 71.25, "732": 73.0},
}


def named() -> list[str]:
    return [
        name for name in options("experiments") if "\npublished:" in (PRESETS / f"{name}.yaml").read_text()
    ]


def test_the_number_of_the_preset_stands_beside_ours(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(
            tmp_path / f"{seed}",
            method="cps",
            seed=seed,
            config={"published": [ROW]},
            overrides=("seed=0", "experiments=cps_mine"),
        )
    (cell,) = study(collect([tmp_path])).cells
    assert cell.published == (Published(0.7125, "their paper", "cps_mine"),)


@pytest.mark.parametrize(
    "other", [{"method": "supervised"}, {"split": "1/4"}, {"config": {"backbone.name": "resnet18"}}]
)
def test_a_number_of_other_settings_is_not_shown(tmp_path: Path, other: dict[str, Any]) -> None:
    other["config"] = {**other.get("config", {}), "published": [ROW, "no row"]}
    write_run(tmp_path / "run", **{"method": "cps", **other})
    (cell,) = study(collect([tmp_path])).cells
    assert cell.published == ()


def test_a_run_of_two_different_networks_is_not_what_was_published(tmp_path: Path) -> None:
    partner = {"method.partner.backbone": {"name": "resnet18"}}
    write_run(tmp_path / "run", method="cps", config={**partner, "published": [ROW]})
    (cell,) = study(collect([tmp_path])).cells
    assert cell.published == ()
    named = {**ROW, "for": {**ROW["for"], "method.partner.backbone": "resnet18"}}
    write_run(tmp_path / "named" / "run", method="cps", config={**partner, "published": [named]})
    (cell,) = study(collect([tmp_path / "named"])).cells
    assert [each.value for each in cell.published] == [0.7125]


@pytest.mark.parametrize(
    ("frozen", "crop", "expected"), [("all", 321, [0.7125]), (None, 321, []), ("all", 513, [])]
)
def test_a_row_may_hold_for_settings_alone(
    tmp_path: Path, frozen: str | None, crop: int, expected: list[float]
) -> None:
    row = {**ROW, "for": {**ROW["for"], "backbone.freeze": "all", "trainer.crop_size": 321, "model.x": None}}
    given = {"backbone.freeze": frozen, "trainer.crop_size": crop, "published": [row]}
    write_run(tmp_path / "run", method="cps", config=given)
    (cell,) = study(collect([tmp_path])).cells
    assert [each.value for each in cell.published] == expected


def test_splits_named_by_a_number_are_found(tmp_path: Path) -> None:
    write_run(tmp_path / "run", method="cps", split="732", config={"published": [ROW]})
    (cell,) = study(collect([tmp_path])).cells
    assert [each.value for each in cell.published] == [0.73]


@pytest.mark.parametrize("preset", named())
def test_rows_of_a_preset_hold_for_what_it_can_run(preset: str) -> None:
    rows = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())["published"]
    for row in rows:
        assert set(row) == {"source", "for", "miou"}
        assert {"dataset", "method"} <= set(row["for"])
        assert all(20 < percent < 92 for percent in row["miou"].values())
    with_settings = [row for row in rows if any("." in key for key in row["for"])]
    for row in {id(row): row for row in [*with_settings, rows[-1]]}.values():
        chosen = [f"{key}={_typed(value)}" for key, value in row["for"].items()]
        split = list(row["miou"])[-1]
        request = Request((f"experiments={preset}", f"split={split}", "dataset.root=/nowhere", *chosen))
        assert Checker().settings(draft(request)) == []


@pytest.mark.parametrize(("weights", "expected"), [("coco", [0.698]), ("imagenet", [0.654]), (None, [])])
def test_numbers_of_s4gan_are_told_apart_by_their_weights(
    tmp_path: Path, weights: str | None, expected: list[float]
) -> None:
    rows = yaml.safe_load((PRESETS / "s4gan_voc.yaml").read_text())["published"]
    names = {"dataset": "voc", "backbone": "resnet101_caffe", "model": "deeplabv2"}
    given = {f"{group}.name": name for group, name in names.items()}
    more = {"backbone.weights": weights, "split_family": "cutmix_seg", "published": rows}
    write_run(tmp_path / "run", method="s4gan", split="1/8", config=given | more)
    (cell,) = study(collect([tmp_path])).cells
    assert [each.value for each in cell.published] == pytest.approx(expected)


def _typed(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_the_config_of_a_run_holds_them_and_no_result_depends_on_them() -> None:
    cfg = compose(Request(("experiments=cps_voc", "split=1/8", "dataset.root=/nowhere")))
    assert [row["miou"]["1/8"] for row in cfg.published] == [73.20, 75.83]
    assert is_harmless("published", {})
