"""Standings of methods over all settings of a study, against numbers computed by hand."""

import re
from pathlib import Path

import pytest
from written_runs import write_probe, write_run

from semiseg.cli import main
from semiseg.report.aggregate import study
from semiseg.report.page import markdown, page
from semiseg.report.records import collect
from semiseg.report.standings import Standing, standings
from semiseg.report.study import Study

BY = ("dataset", "split", "method")
GAINS = {
    ("a", "1/8"): {"cps": (0.04, 0.05, 0.06), "st": (0.01, -0.02, 0.02)},
    ("b", "1/8"): {"cps": (0.02, 0.03, 0.01), "st": (-0.05, -0.06, -0.05)},
}
"""Differences to supervised of each seed, by dataset and split, then by method."""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for (dataset, split), methods in GAINS.items():
        for method, gains in {"supervised": (0.0,) * 3, **methods}.items():
            seconds = {"supervised": 60.0, "cps": 240.0 if dataset == "a" else 60.0}.get(method, 90.0)
            for seed, gain in enumerate(gains):
                write(tmp_path, dataset, method, split, seed, 0.5 + 0.1 * seed + gain, seconds)
        for seed in range(3):
            score = 0.48 + 0.1 * seed
            more = {"seed": seed, "split": split, "labeled": f"{dataset} {split} {seed}"}
            write_probe(tmp_path / f"{dataset}-probe-{seed}", score, config={"dataset.name": dataset}, **more)
    return tmp_path


def write(
    folder: Path, dataset: str, method: str, split: str, seed: int, miou: float, seconds: float = 60.0
) -> None:
    write_run(
        folder / f"{dataset}-{method}-{split.replace('/', 'of')}-{seed}",
        miou,
        method=method,
        split=split,
        seed=seed,
        labeled=f"{dataset} {split} {seed}",
        config={"dataset.name": dataset},
        summary={"wall_s": seconds},
    )


def made(folder: Path) -> Study:
    return study(collect([folder]), BY)


def standing(found: Study, name: str) -> Standing:
    return next(each for each in standings(found) if each.name == name)


def test_settings_with_an_interval_beside_0_are_counted(runs: Path) -> None:
    cps, st = (standing(made(runs), name) for name in ("cps", "st"))
    # Of cps the means 0.05 and 0.02 with s = 0.01 have intervals of 0.0248 to each side.
    assert (list(cps.differences), cps.above, cps.below, cps.neither) == (["a 1/8", "b 1/8"], 1, 0, 1)
    assert (st.above, st.below, st.neither) == (0, 1, 1)
    assert st.ends == (pytest.approx(-0.16 / 3), pytest.approx(0.01 / 3))


def test_the_interval_of_the_mean_is_over_seeds_averaged_over_settings(runs: Path) -> None:
    mean = standing(made(runs), "cps").mean
    # Seeds averaged over settings: 0.03, 0.04, 0.035; s = 0.005, half width 4.30265 * 0.005 / sqrt(3).
    assert mean is not None
    assert (mean.mean, mean.pairs) == (pytest.approx(0.035), 3)
    assert (mean.low, mean.high) == (
        pytest.approx(0.0225793, abs=1e-6),
        pytest.approx(0.0474207, abs=1e-6),
    )


def test_settings_with_other_seeds_count_alike_and_have_no_interval(runs: Path) -> None:
    write(runs, "a", "supervised", "1/8", 3, 0.5)
    write(runs, "a", "cps", "1/8", 3, 0.59)
    mean = standing(made(runs), "cps").mean
    assert mean is not None
    # 0.06 over four seeds of a, 0.02 over three of b.
    assert (mean.mean, mean.low, mean.pairs) == (pytest.approx(0.04), None, 3)


def test_the_floor_and_the_time_are_counted_over_settings(runs: Path) -> None:
    found = made(runs)
    # 4 and 1 times as long: their geometric mean is 2.
    assert standing(found, "cps").time == pytest.approx(2)
    assert standing(found, "probe").time == pytest.approx(0.05)
    assert (standing(found, "st").below_floor, len(standing(found, "st").floors)) == (1, 2)
    assert (standing(found, "supervised").below_floor, standing(found, "supervised").mean) == (0, None)
    assert standing(found, "probe").floors == {}


def test_the_baseline_is_first_and_the_others_follow_by_their_mean(runs: Path) -> None:
    assert [each.name for each in standings(made(runs))] == ["supervised", "cps", "probe", "st"]


def test_one_setting_needs_no_standings(tmp_path: Path) -> None:
    write(tmp_path, "a", "supervised", "1/8", 0, 0.5)
    write(tmp_path, "a", "cps", "1/8", 0, 0.6)
    found = made(tmp_path)
    assert standings(found) == []
    assert "Over all settings" not in page(found)
    assert "Over all settings" not in markdown(found, [], tmp_path)


def test_without_a_baseline_the_floor_alone_is_shown(tmp_path: Path) -> None:
    for split in ("1/8", "1/4"):
        write(tmp_path, "a", "cps", split, 0, 0.5)
        write_probe(
            tmp_path / split.replace("/", "of"),
            0.6,
            split=split,
            config={"dataset.name": "a"},
            labeled=f"a {split} 0",
        )
    found = made(tmp_path)
    assert found.baseline is None
    assert "| method | below the floor |\n| --- | --- |\n| cps | 2 of 2 |" in markdown(found, [], tmp_path)


def test_page_text_and_terminal_show_them(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs), "--by", ",".join(BY)]) == 0
    screen = capsys.readouterr().out
    assert re.search(
        r"^cps +2 +1 +0 +1 +\+3\.5 \[\+2\.3, \+4\.7\] +\+2\.0 to \+5\.0 +2 × +0 of 2$", screen, re.M
    )
    text = (runs / "report" / "report.md").read_text()
    assert "| st | 2 | 0 | 1 | 1 | −2.5 [−5.8, +0.8] | −5.3 to +0.3 | 1.5 × | 1 of 2 |" in text
    assert "A setting is a value of dataset and split." in text
    html = (runs / "report" / "report.html").read_text()
    assert 'aria-label="Over all settings"' in html
    assert ">1 of 2</td>" in html
