"""Bad configs: each fault is named with key, value, what is allowed and the nearest name, all on one screen."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from semiseg.cli import main

PRESET = "# @package _global_\n"


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    monkeypatch.delenv("SEMISEG_DEBUG", raising=False)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a refused command prints, its line breaks removed."""
    assert main(["train", *words]) == 2
    screen = capsys.readouterr().err
    assert "Traceback" not in screen
    assert not Path("runs").exists()
    return re.sub(r"\s+", " ", screen)


SETTINGS = [
    # overrides, what the screen must hold
    (
        "trainer.iteratons=40",
        "trainer.iteratons=40 (from command line) no such key. Did you mean trainer.iterations?",
    ),
    ("trainer.foo=40", "trainer.foo=40 (from command line) no such key. trainer has: name, iterations,"),
    ("iterations=40", "Did you mean trainer.iterations?"),
    ("sed=4", "sed=4 (from command line) no such key. Did you mean seed?"),
    ("experiment=shapes", "Did you mean experiments?"),
    ("+trainer.foo.bar=1", "trainer.foo={'bar': 1} (from command line) no such key."),
    ("datset=camvid", "Did you mean dataset?"),
    ("dataset=cmvid", "dataset=cmvid (from command line) no such option. Did you mean camvid?"),
    ("method=CPS", "Did you mean cps?"),
    ("experiments=nothing_like_it", "experiments=nothing_like_it (from command line) no such option."),
    ("methods/x=cps", "no such group."),
    ("~trainer.batch_size", "~trainer.batch_size (from command line) cannot be deleted; give it a value."),
    ("~seed", "~seed (from command line) cannot be deleted"),
    ("+experiments=cps_voc", "leave out the +. Did you mean experiments=cps_voc?"),
    ("~method", "method (from command line) has to be given; choose one of: adv_semiseg, augseg, cac,"),
    ("dataset=null", "choose one of: ade20k, camvid, cityscapes, coco, folder, shapes, voc."),
    ("dataset=shapes dataset=camvid", "dataset is chosen twice."),
    ("seed=abc", "seed=abc (from command line) expected a whole number of at least 0."),
    ("seed=-1", "seed=-1 (from command line) expected a whole number of at least 0."),
    (
        "trainer.iterations=40k",
        "trainer.iterations=40k (from command line) expected a whole number of at least 1 or null.",
    ),
    ("trainer.iterations=0", "expected a whole number of at least 1 or null."),
    ("trainer.iterations=10 trainer.epochs=2", "trainer.iterations=10 trainer.epochs=2 a run has one length"),
    (
        "trainer.batch_size=0",
        "trainer.batch_size=0 (from command line) expected a whole number of at least 1.",
    ),
    ("trainer.batch_size=[1,2]", "expected a whole number of at least 1."),
    ("trainer.batch_size=1.5", "expected a whole number of at least 1."),
    ("trainer.crop_size=4", "expected a number of pixels or [height,width], 8 or more."),
    ("trainer.crop_size=[64,64,3]", "[height,width]"),
    (
        "trainer.num_workers=-1",
        "trainer.num_workers=-1 (from command line) expected a whole number of at least 0 or null.",
    ),
    ("trainer.checkpoint_minutes=0", "expected a number above 0 or null."),
    ("trainer.precision=bf32", "expected one of: fp32, tf32, bf16, fp16, fp64. Did you mean tf32?"),
    ("trainer.device=gpu", "expected auto, cpu, cuda, or one GPU such as cuda:0."),
    ("trainer.max_time=soon", 'expected minutes (90) or "H:MM:SS" ("1:30:00").'),
    ("trainer.max_time=1:30", 'trainer.max_time=1:30 (from command line) expected minutes (90) or "H:MM:SS"'),
    ("trainer.max_time=nan", "expected minutes"),
    ("sweep_dir=s", "sweep_dir=s (from command line) is for -m; a single run takes run_dir."),
    ("trainer.clip_grad_norm=0", "expected a number above 0 or null."),
    ("trainer.channels_last=maybe", "expected true or false."),
    ("trainer=5", "trainer=5 (from command line) no such option."),
    ("split=1_8", "split=1_8 (from command line) write a share with a slash. Did you mean 1/8?"),
    ("split=0.125", 'expected a share such as 1/8, a number of images such as 732, or "full".'),
    ("split=9/8", "expected a share such as 1/8"),
    ("split_family=evry", "Did you mean every?"),
    ("split_family=list", "split_lists=null split_family=list needs the folder that holds labeled.txt."),
    ("unlabeled=none", "expected one of: rest, all."),
    ("tags=fast", "expected a list [text, ...]"),
    ("evaluator.scales=[0.5,-1]", "expected numbers above 0."),
    ("evaluator.scales=[]", "expected numbers above 0."),
    ("evaluator.stride=1.5", "expected a share of the window up to 1, or whole pixels."),
    ("evaluator.stride=600", "larger than the window (512) would leave gaps."),
    ("evaluator.resize_to=[512]", "expected [height,width] in pixels or null."),
    ("evaluator.resize_to=[512,0]", "expected [height,width] in pixels or null."),
    ("evaluator.pad=size", "evaluator.pad_to=0 evaluator.pad=size needs a number of pixels above 0."),
    (
        "evaluator=slide evaluator.pad=size evaluator.pad_to=96",
        "evaluator.pad=size (from command line) is for whole images and has no effect with evaluator.mode=slide.",
    ),
    ("evaluator.pad_to=96", "evaluator.pad_to=96 (from command line) has no effect with evaluator.pad=none"),
    ("evaluator.pad_value=reflect", "evaluator.pad_value=reflect (from command line) has no effect"),
    ("evaluator.absent=leave", "expected one of: true_only, skip, zero."),
    ("evaluator.primary=dice", "expected one of: miou, mdice,"),
    ("evaluator.primary=dice", "Did you mean mdice?"),
    (
        "evaluator.primary=mboundary_iou",
        "evaluator.primary=mboundary_iou (from command line) needs evaluator.metrics=[boundary_iou].",
    ),
    ("evaluator.primary=foreground_iou", "needs the names of the classes, such as evaluator.foreground="),
    ("evaluator.metrics=[hausdorff]", "expected a list of boundary_iou, calibration, both or neither."),
    ("evaluator.foreground=disk", "expected a list of class names."),
    ("evaluator.foreground=[disk,disk]", "names a class twice."),
    ("evaluator.boundary_ratio=2", "expected a number above 0 and below 1."),
    ("evaluator.calibration_bins=0", "expected a whole number of at least 1."),
    ("tracker.mode=of", "expected one of: offline, online, disabled."),
    ("data_roots=/data", "expected"),
    ("seed=0,1", "several values need -m"),
    ("name=a(b", "Put a value with special characters in two pairs of quotes"),
    ("seed", "not of the form key=value"),
    ("hydra.nothing=1", "hydra.nothing"),
    ("backbone=timm", "backbone.name has to be given: the name of a network of timm"),
    ("backbone=vit", "backbone.network has to be given: timm's name of a plain transformer"),
    (
        "evaluator.fit=resize evaluator.mode=slide",
        "evaluator.fit=resize (from command line) is for whole images and has no effect with evaluator.mode=slide.",
    ),
    (
        "evaluator.fit=resize evaluator.pad=multiple evaluator.pad_to=8",
        "evaluator.fit=resize (from command line) resizes images, so that nothing is padded",
    ),
    (
        "evaluator.fit_to=14",
        "evaluator.fit_to=14 (from command line) has no effect with evaluator.fit=pad",
    ),
    (
        "evaluator.window_edge=shrink",
        "evaluator.window_edge=shrink (from command line) has no effect without windows",
    ),
    ("dataset=folder", "dataset.classes has to be given."),
    ("run_dir=${nowhere}", "run_dir (from command line) cannot be resolved"),
    (
        "-m run_dir=here seed=0,1",
        "run_dir (from command line) -m makes a directory for each run; use sweep_dir.",
    ),
    ("-m seed=0,x", "seed=x (from command line) expected a whole number of at least 0."),
    ("--config-name nothing", "--config-name=nothing there is no file"),
    ("--pln", "unrecognized arguments: --pln"),
    ("--cfg nothing", "invalid choice: 'nothing'"),
]

COMPONENTS = [
    (
        "method=cps method.cutmx=true",
        "method.cutmx=true (from command line) CPS takes no cutmx. Did you mean cutmix?",
    ),
    ("method.loss=oehm", "method.loss=oehm (from command line) expected one of: ce, ohem, focal."),
    ("method.weight=-1", "method.weight=-1 (from command line) expected a number of at least 0."),
    ("optimizer.lr=abc", "optimizer.lr=abc (from command line) expected a number above 0."),
    ("~optimizer.lr", "optimizer.lr (from command line) missing; SGD needs it."),
    ("dataset.size=big", "dataset.size=big (from command line) expected a whole number of at least 32"),
    ("backbone.depth=18", "Tiny takes no depth."),
    ("model.rates=3", "model.rates=3 (from command line) expected dilations of at least 1, such as"),
    (
        "augment.weak.resize.hgh=3",
        "ScaleUniform takes no hgh. Did you mean high?",
    ),
    ("augment.strong.transforms.0.hues=1", "ColorJitter takes no hues. Did you mean hue?"),
    (
        "augment.weak.flip=up",
        "augment.weak.flip=up (from command line) expected one of: last, first, second, none.",
    ),
    (
        "augment.cutout=3",
        "augment.cutout=3 (from command line) expected a node whose _target_ gives a Cutout or null.",
    ),
    (
        "method._target_=os.system",
        "its top package has to be one of semiseg, torch, torchvision, albumentations, timm",
    ),
    ("method._target_=semiseg.methods.cps.CSP", "Did you mean semiseg.methods.cps.CPS?"),
    ("method._target_=semiseg.methods.csp.CPS", "semiseg.methods has no csp."),
    ("method._target_=5", "its top package has to be one of"),
    ("~method._target_", "method={'name': 'cutmix_seg'"),
    (
        "trainer.device=cuda:77",
        "trainer.device=cuda:77 (from command line) not on this machine, which has: cpu",
    ),
    (
        "split=full",
        "split=full (from command line) method=cutmix_seg needs unlabeled images and this leaves none.",
    ),
    ("split=481", "split=481 (from command line) there are only 480 training images"),
    (
        "trainer.batch_size=6 trainer.accumulate=3",
        "trainer.accumulate=3 (from command line) cannot divide trainer.unlabeled_batch_size=4 into equal parts.",
    ),
    (
        "method=st trainer.batch_size=7 trainer.accumulate=2",
        "cannot divide trainer.batch_size + trainer.unlabeled_batch_size=11 into equal parts.",
    ),
    (
        "trainer.batch_size=1",
        "trainer.batch_size=1 (from command line) too few images go through the network at once: "
        "model=deeplabv3plus pools whole images, and its batch norm needs 2 of them.",
    ),
    (
        "method=supervised trainer.accumulate=4 model=deeplabv3plus_cps",
        "trainer.accumulate=4 (from command line) with trainer.batch_size=4 too few images",
    ),
    ("optimizer.lr=-1", "optimizer.lr=-1 (from command line) expected a number above 0."),
    (
        "optimizer=adamw optimizer.beta1=1.5",
        "optimizer.beta1=1.5 (from command line) expected a number of at least 0 and below 1.",
    ),
    ("schedule.power=-1", "schedule.power=-1 (from command line) expected a number of at least 0."),
    (
        "schedule=cosine schedule.warmup=2",
        "schedule.warmup=2 (from command line) expected a number of at least 0 and at most 1.",
    ),
    ("model.channels=0", "model.channels=0 (from command line) expected a whole number of at least 1."),
    (
        "model.dropout=1.5",
        "model.dropout=1.5 (from command line) expected a number of at least 0 and below 1.",
    ),
    (
        "split=full unlabeled=all method=st",
        "split=full (from command line) method=st labels images that are unlabeled and not labeled",
    ),
    ("split=479 method=stpp", "1 unlabeled images can't be cut into a reliable part"),
    ("split_id=3", "split_id=3 (from command line) the family every has one partition"),
    ("dataset=camvid", "dataset.root and SEMISEG_DATA are not set"),
    ("dataset=camvid dataset.root=/no/such/folder", "/no/such/folder"),
    (
        "backbone=resnet18 backbone.weights=/no/such.pth",
        "backbone.weights (from command line) Weights file not found",
    ),
    ("backbone=resnet18 backbone.weights=/no/such.pth model=dpt", "needs four maps of one stride"),
    ("backbone=resnet18 backbone.depth=19", "19"),
    ("backbone=resnet18 backbone.output_stride=4", "4"),
]


@pytest.mark.parametrize(("words", "expected"), SETTINGS)
def test_settings(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in answer(capsys, *words.split())


@pytest.mark.parametrize(("words", "expected"), COMPONENTS)
def test_components(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in answer(capsys, *words.split())


def test_all_faults_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "trainer.iteratons=3 seed=x method=nothing dataset.siz=3 backbone=resnet18 backbone.output_stride=5 "
        "optimizer.lr=a trainer.device=cuda:77 datset=3 hydra.nothing=1 split"
    )
    screen = answer(capsys, *words.split())
    assert "10 faults in the config" in screen
    for key in (
        "iteratons",
        "seed=x",
        "method=nothing",
        "dataset.siz=3",
        "stride",
        "optimizer.lr=a",
        "cuda:77",
        "datset=3",
    ):
        assert key in screen


def test_faults_of_files_name_the_file(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("experiments").mkdir()
    Path("experiments/base.yaml").write_text(f"{PRESET}trainer:\n  batchsize: 4\n")
    preset = f"{PRESET}defaults:\n  - base\ntrainer:\n  crop_size: tall\nmethod:\n  wieght: 2\n"
    Path("experiments/mine.yaml").write_text(preset)
    Path("local.yaml").write_text("tracker:\n  mod: online\n")
    screen = answer(capsys, "experiments=mine")
    assert f"trainer.batchsize=4 (from {workdir}/experiments/base.yaml)" in screen
    assert f"trainer.crop_size=tall (from {workdir}/experiments/mine.yaml)" in screen
    assert f"method.wieght=2 (from {workdir}/experiments/mine.yaml)" in screen
    assert "tracker.mod=online (from local.yaml) no such key. Did you mean tracker.mode?" in screen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "local.yaml cannot be read"),
        ("- 1", "local.yaml expected keys and values"),
        ("dataset: cmvid", "dataset=cmvid (from local.yaml) no such option. Did you mean camvid?"),
    ],
)
def test_broken_local_file(text: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("local.yaml").write_text(text)
    assert expected in answer(capsys)


@pytest.mark.parametrize(
    "text", ["trainer:\n  seed: 3\n", f"{PRESET}a: [", f"{PRESET}defaults:\n  - override /nothing: x\n"]
)
def test_broken_preset(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("experiments").mkdir()
    Path("experiments/bad.yaml").write_text(text)
    screen = answer(capsys, "experiments=bad", "seed=x")
    assert "experiments" in screen
    assert "seed=x" in screen


def test_numbers_to_the_base_60(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("local.yaml").write_text("trainer:\n  max_time: 1:30:00\nsweep_dir: s\nname: 'a:b'\n")
    screen = answer(capsys)
    reading = "(from local.yaml) YAML reads this as the number 5400. Put it in quotes"
    assert f'trainer.max_time=1:30:00 {reading}: "1:30:00".' in screen
    assert "1 fault in" in screen
    Path("local.yaml").write_text("trainer: {max_time: '1:30'}")
    assert "expected minutes" in answer(capsys)


def test_iterations_and_epochs_in_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("local.yaml").write_text("trainer:\n  iterations: 5\n  epochs: 2\n")
    assert "trainer.iterations=5 trainer.epochs=2" in answer(capsys)


@pytest.mark.slow
def test_settings_are_answered_without_torch() -> None:
    """Of a sweep those of all runs."""
    commands = ["trainer.iteratons=3", "method=nothing", "split=1_8", "trainer.precision=fp8 split=900"]
    commands += ["-m method=cps,stpp trainer.crop_size=64,7"]
    code = (
        "import sys\nfrom semiseg.cli import main\n"
        f"codes = [main(['train', *words.split()]) for words in {commands!r}]\n"
        "assert 'torch' not in sys.modules\nassert set(codes) == {2}\nsys.exit(2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 40


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEMISEG_DEBUG", "1")
    assert main(["train", "seed=x"]) == 2
    assert "Traceback" in capsys.readouterr().err
