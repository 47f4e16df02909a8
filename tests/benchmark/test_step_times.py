"""Training steps of all methods are measured, and the command writes what was found."""

from pathlib import Path

import pytest

from semiseg.benchmark.step_times import info_of, measure_steps
from semiseg.cli import main
from semiseg.config.compose import Request, compose

SMALL = (
    "trainer.crop_size=32",
    "trainer.batch_size=2",
    "trainer.unlabeled_batch_size=2",
    "trainer.threads=1",
)

PASSES = {
    ("supervised",): ["1 with gradient"],
    ("cps", "method.cutmix=true"): ["4 with gradient, 4 without"],
    ("cps", "method.cutmix=false"): ["4 with gradient"],
    ("stpp",): ["1 with gradient", "1 with gradient"],
    ("mean_teacher",): ["2 with gradient, 1 without"],
    ("cct",): ["2 with gradient"],
    ("cutmix_seg",): ["2 with gradient, 2 without"],
    ("dmt",): ["1 with gradient", "1 with gradient"],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", PASSES)
def test_fits_of_methods_are_measured(method: tuple[str, ...]) -> None:
    cfg = compose(Request((f"method={method[0]}", *method[1:], *SMALL)))
    lines: list[str] = []
    found = measure_steps(cfg, 2, lines.append)
    assert [each.passes for each in found] == PASSES[method]
    assert len(lines) == len(found)
    for each in found:
        assert 0.3 < each.multiple < 10
        assert each.step > 0
        assert each.images > 0
        assert each.memory > 2**26


@pytest.mark.slow
def test_the_command_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "speed.md"
    assert main(["benchmark", "method=supervised", *SMALL, "--rounds", "1", "-o", str(report)]) == 0
    text = report.read_text()
    assert text.startswith("    semiseg benchmark method=supervised trainer.crop_size=32")
    assert "| supervised | train | tiny deeplabv3plus 32 | 2 | 1 with gradient |" in text
    assert "Machine: " in text
    assert text in capsys.readouterr().out
    assert main(["benchmark", "--rounds", "0"]) == 2
    assert main(["benchmark", "method=suprvised"]) == 2


def test_classes_are_those_of_the_dataset() -> None:
    for dataset, classes in (("voc", 21), ("cityscapes", 19), ("camvid", 11), ("shapes", 7)):
        assert info_of(compose(Request((f"dataset={dataset}",)))).num_classes == classes
    own = compose(Request(("dataset=folder", "dataset.classes=[a,b]")))
    assert info_of(own).classes == ("a", "b")
