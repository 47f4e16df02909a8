"""The preset that ``semiseg init`` writes: it trains, it can be changed, and nothing is overwritten."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml
from own_folder import fields, save

from semiseg.cli import main
from semiseg.onboard import step_speed

NEEDS_TIMM = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm")
SHORT = (
    *("trainer.iterations=2", "trainer.eval_every=2", "trainer.crop_size=32", "trainer.threads=1"),
    *("trainer.device=cpu", "tracker.mode=disabled", "dataset.cache=false"),
)
"""Overrides that make a run a matter of seconds."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory, on a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return tmp_path


def folder(root, side=(64, 48), labeled="abcde", unlabeled=30):
    """Noise of a size, with masks of three classes, one of which is rare."""
    width, height = side
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    mask[: height // 8, : width // 8] = 2
    fields(root, mask=mask, labeled=labeled, unlabeled="")
    random = np.random.default_rng(0)
    for stem in [*labeled, *(f"u{number}" for number in range(unlabeled))]:
        save(root / "images" / f"{stem}.jpg", random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return root


def init(root, *options):
    assert main(["init", str(root), *options]) == 0


def preset(name="fields"):
    return yaml.safe_load(Path(f"experiments/{name}.yaml").read_text(encoding="utf-8"))


def test_report_names_choice_reasons_time_and_commands(here, capsys):
    init(folder(here / "fields", (640, 480)))
    text = capsys.readouterr().out
    report = text[text.index("training on fields") :]
    assert len(report.splitlines()) < 16
    for words in (
        "fixmatch: 30 unlabeled beside 4 labeled images",
        "pictures of 640x480 at 0.5 of their size",
        "iterations, about",
        "semiseg train -m experiments=fields method=probe,fixmatch_fields seed=0,1,2 sweep_dir=runs/fields",
        "semiseg train -m experiments=fields method=supervised_fields optimizer.lr=5e-05 seed=0,1,2 sweep_dir=",
        "semiseg report runs/fields",
        "semiseg train experiments=fields",
    ):
        assert words in report
    assert "written  experiments/fields.yaml" in text
    assert "written  method/fixmatch_fields.yaml" in text
    assert "written  method/supervised_fields.yaml" in text


@NEEDS_TIMM
@pytest.mark.parametrize("method", ["probe", "supervised_fields", "fixmatch_fields"])
def test_methods_of_the_preset_train(here, capsys, method):
    init(folder(here / "fields", (160, 96)))
    words = ["experiments=fields", f"method={method}", "backbone.weights=none", "run_dir=run", *SHORT]
    assert main(["train", *words]) == 0
    assert "mIoU" in capsys.readouterr().out


def test_tiny_pictures_train_as_written(here):
    init(folder(here / "fields"))
    assert preset()["split"] == "full"
    assert main(["train", "experiments=fields", "run_dir=run", *SHORT]) == 0
    assert Path("run/summary.json").is_file()


def test_labeled_images_alone_train(here, capsys):
    init(folder(here / "fields", unlabeled=0))
    assert "supervised: all pictures have labels" in capsys.readouterr().out
    assert not Path("method").exists()
    assert main(["train", "experiments=fields", "run_dir=run", *SHORT]) == 0


def test_bands_of_other_numbers_train(here, capsys):
    root = here / "fields"
    folder(root)
    for path in list((root / "images").glob("*.jpg")):
        np.save(
            path.with_suffix(".npy"),
            np.random.default_rng(1).integers(0, 4000, (48, 64, 5)).astype(np.uint16),
        )
        path.unlink()
    init(root, "--bands")
    assert main(["train", "experiments=fields", "run_dir=run", *SHORT]) == 0


def test_two_labeled_images_are_enough(here, capsys):
    init(folder(here / "fields", labeled="ab"))
    assert "1 labeled image to learn from" in capsys.readouterr().out
    assert main(["train", "experiments=fields", "run_dir=run", *SHORT]) == 0


def test_names_with_blanks_and_another_working_directory(here, monkeypatch, capsys):
    root = folder(here / "my data" / "Wheat Fields (2026)")
    work = here / "work here"
    work.mkdir()
    monkeypatch.chdir(work)
    init(Path("..") / "my data" / root.name)
    (name,) = [path.stem for path in Path("experiments").iterdir()]
    assert f"experiments={name}" in capsys.readouterr().out
    assert main(["train", "--plan", f"experiments={name}", *SHORT]) == 0


@pytest.mark.parametrize("given", ["2024", "on", "1e3", "null"])
def test_names_that_are_read_otherwise(here, given, capsys):
    init(folder(here / given), "--minutes", "1")
    (name,) = [path.stem for path in Path("experiments").iterdir()]
    assert main(["train", "--plan", f"experiments={name}", *SHORT]) == 0
    capsys.readouterr()
    if name != given:
        assert main(["init", str(here / given), "--name", given]) == 2
        assert f"such as own_{given}" in capsys.readouterr().err


def test_nothing_is_written_where_a_later_file_cannot_be(here, capsys):
    Path("method").write_text("a file in the way")
    assert main(["init", str(folder(here / "fields"))]) == 2
    assert "is a file" in capsys.readouterr().err
    assert not Path("dataset").exists()
    assert not Path("experiments").exists()


def test_nothing_is_overwritten_unless_it_is_forced(here, capsys):
    root = folder(here / "fields")
    init(root)
    Path("dataset/fields.yaml").unlink()
    Path("experiments/fields.yaml").write_text("# mine\n")
    assert main(["init", str(root)]) == 2
    assert "method/cutmix_seg_fields.yaml exist already: --force replaces them" in capsys.readouterr().err
    assert not Path("dataset/fields.yaml").exists()
    init(root, "--no-preset")
    assert Path("experiments/fields.yaml").read_text() == "# mine\n"
    init(root, "--force")
    assert preset()["trainer"]["iterations"] > 0


def test_file_of_the_method_is_not_overwritten(here, capsys):
    Path("method").mkdir()
    Path("method/fixmatch_fields.yaml").write_text("# mine\n")
    assert main(["init", str(folder(here / "fields"))]) == 2
    assert "method/fixmatch_fields.yaml exists already" in capsys.readouterr().err


def test_name_of_a_shipped_preset_is_refused(here, capsys):
    assert main(["init", str(folder(here / "fields")), "--name", "camvid_cpu"]) == 2
    assert "--name my_camvid_cpu" in capsys.readouterr().err


def test_weights_that_are_not_there_or_of_another_network(here, capsys, monkeypatch, real_step_times):
    root = folder(here / "fields", (160, 96))
    assert main(["init", str(root), "--weights", "none.pth"]) == 2
    assert "none.pth: there is no such file" in capsys.readouterr().err
    Path("wrong.pth").write_bytes(b"no weights")
    monkeypatch.setattr(step_speed, "measure_speed", real_step_times)
    assert main(["init", str(root), "--weights", "wrong.pth"]) == 2
    assert "wrong.pth" in capsys.readouterr().err
    assert not Path("dataset").exists()


def test_minutes_decide_on_the_length(here):
    root = folder(here / "fields", labeled="".join(map(chr, range(97, 123))))
    lengths = []
    for minutes in ("2", "5"):
        init(root, "--minutes", minutes, "--force")
        lengths.append(preset()["trainer"]["iterations"])
    assert lengths[0] < lengths[1]
    for wrong in ("0", "-1", "nan", "inf"):
        assert main(["init", str(root), "--minutes", wrong]) == 2


def test_time_is_measured_and_agrees_with_the_plan(here, capsys, monkeypatch, real_step_times):
    found = []

    def measured(*given):
        found.append(real_step_times(*given))
        return found[-1]

    monkeypatch.setattr(step_speed, "measure_speed", measured)
    init(folder(here / "fields"), "--minutes", "1")
    (speed,) = found
    assert speed.step > 0
    assert speed.evaluation > 0
    # No run was begun by measuring.
    assert not Path("runs").exists()
    assert main(["train", "--plan", "experiments=fields"]) == 0
    iterations = preset()["trainer"]["iterations"]
    assert f"{iterations} iterations" in capsys.readouterr().out


def test_time_that_cannot_be_measured_is_said(here, capsys, monkeypatch):
    from semiseg.errors import RunFailed

    def failing(*given):
        raise RunFailed("out of memory")

    monkeypatch.setattr(step_speed, "measure_speed", failing)
    init(folder(here / "fields"))
    assert "could not be measured: out of memory" in capsys.readouterr().out
    assert preset()["trainer"]["iterations"] > 0


def test_plan_counts_no_comparison_with_masks_that_there_are_not(here, capsys, monkeypatch):
    from semiseg.engine.plan import PlanLab

    root = folder(here / "fields", labeled="abcdefgh")
    init(root, "--val", "0.25")
    monkeypatch.setattr(PlanLab, "_evaluation_seconds", lambda self, model: 1000.0)
    plan = ["train", "--plan", "experiments=fields", *SHORT, "method=supervised"]
    capsys.readouterr()
    assert main(plan) == 0
    # Two validation images, and none of the 30 unlabeled ones.
    assert "about 33 min" in capsys.readouterr().out.splitlines()[0]


@NEEDS_TIMM
def test_chosen_method_alone_begins_with_unlabeled_images(here, capsys):
    init(folder(here / "fields", (160, 96)))
    for method, rounds in (("fixmatch_fields", 2), ("mean_teacher", 0)):
        capsys.readouterr()
        assert main(["train", "--cfg", "job", "experiments=fields", f"method={method}"]) == 0
        assert f"probe_rounds: {rounds}\n" in capsys.readouterr().out
