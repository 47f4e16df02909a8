"""The inspection of the machine: what it says, its problems with cures, and its exit code."""

import json
import types

import pytest
from PIL import Image

from semiseg.cli import doctor, main
from semiseg.doctor import installation, resources

PIXEL = Image.new("RGB", (2, 2))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty working directory and home, and no setting of the machine."""
    for name in ("SEMISEG_DATA", "WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def data(home, monkeypatch):
    """SEMISEG_DATA with a small camvid."""
    folder = home / "data" / "camvid"
    for part in ("train", "val"):
        for below in (part, f"{part}annot"):
            (folder / below).mkdir(parents=True)
        PIXEL.save(folder / part / f"{part}.png")
        PIXEL.convert("L").save(folder / f"{part}annot" / f"{part}.png")
    monkeypatch.setenv("SEMISEG_DATA", str(folder.parent))
    return folder


def problems(section):
    return [f"{problem.what} | {problem.cure}" for problem in section.problems]


def test_text_and_json(home, capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in (
        "versions",
        "torch",
        "devices",
        "memory",
        "disk",
        "threads",
        "SEMISEG_DATA",
        "weights",
        "wandb",
    ):
        assert word in text
    assert text.endswith("semiseg can be used.\n")
    assert main(["doctor", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["usable"] is True
    titles = ["versions", "devices", "threads", "memory", "disk", "datasets", "weights", "cache", "wandb"]
    assert list(content) == ["usable", *titles]
    assert content["memory"]["facts"]["total_bytes"] > 2**20
    assert content["datasets"]["facts"]["camvid"] is None
    assert list(home.iterdir()) == []


def test_what_makes_semiseg_unusable_sets_the_exit_code(monkeypatch, capsys):
    versions = {"torch": None, "numpy": "1.26.4", "albumentations": "2.0.9"}
    found = installation._version
    monkeypatch.setattr(installation, "_version", lambda name: versions.get(name, found(name)))
    assert main(["doctor"]) == 2
    text = capsys.readouterr().out
    assert "torch is not installed; >=2.13 is required" in text
    assert 'cure: python -m pip install "torch>=2.13"' in text
    assert "numpy has version 1.26.4; >=2.2 is required" in text
    assert "albumentations has version 2.0.9; ==2.0.8 is required" in text
    assert text.endswith("before that is corrected.\n")


def test_a_package_that_does_not_load(monkeypatch):
    monkeypatch.setattr(installation, "IMPORTED", {"no_such_module": "the-package"})
    section = installation.versions()
    assert section.problems[0].fatal
    assert "no_such_module cannot be imported" in section.problems[0].what
    assert "the-package" in section.problems[0].cure


def test_two_wheels_of_opencv(monkeypatch):
    found = installation._version
    monkeypatch.setattr(
        installation, "_version", lambda name: "4.13" if name == "opencv-python" else found(name)
    )
    section = installation.versions()
    assert len(section.problems) == 1
    assert not section.problems[0].fatal
    assert "opencv-python and opencv-python-headless are installed side by side" in section.problems[0].what
    assert "uninstall -y opencv-python opencv-python-headless &&" in section.problems[0].cure


def test_gpus_are_listed(monkeypatch):
    torch = pytest.importorskip("torch")
    gpu = types.SimpleNamespace(name="Some GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    section = installation.devices()
    assert section.facts["cuda:1"] == "Some GPU, 80 GiB"
    assert section.problems == []


@pytest.mark.parametrize(("built", "expected"), [(None, "built for CPU"), ("13.0", "torch cannot use it")])
def test_a_gpu_that_torch_cannot_use(home, monkeypatch, built, expected):
    torch = pytest.importorskip("torch")
    (home / "version").write_text("a driver")
    monkeypatch.setattr(installation, "NVIDIA", home / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    assert expected in problems(installation.devices())[0]


def test_too_many_threads_for_the_container(home, monkeypatch):
    quota = home / "cpu.max"
    monkeypatch.setattr(installation, "CPU_QUOTA", quota)
    monkeypatch.setattr(installation.os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    quota.write_text("max 100000\n")
    assert problems(installation.threads()) == []
    quota.write_text("400000 100000\n")
    assert "16 threads would compete for 4 cores" in problems(installation.threads())[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert problems(installation.threads()) == []
    monkeypatch.setenv("OMP_NUM_THREADS", "32")
    quota.unlink()
    assert "OMP_NUM_THREADS=16" in problems(installation.threads())[0]


def test_little_memory_and_disk(home, monkeypatch):
    for name in ("LITTLE_MEMORY", "LITTLE_SHARED_MEMORY", "LITTLE_DISK"):
        monkeypatch.setattr(installation, name, 2**60)
    found = problems(installation.memory())
    assert "GiB of memory are free" in found[0]
    assert "--shm-size" in found[1]
    assert "runs: only" in problems(installation.disk_space({"runs": home / "not" / "there"}))[0]


def test_counts_and_missing_files(data, capsys):
    section = resources.datasets()
    assert section.facts["camvid"] == {"train": 1, "val": 1, "test": 0}
    assert section.facts["voc"] is None
    assert "camvid has 1 train, 1 val, 0 test images; published are 367 train" in problems(section)[0]
    (data / "valannot" / "val.png").unlink()
    assert "camvid lacks 1 files, the first of them" in problems(resources.datasets())[1]
    assert "val.png" in problems(resources.datasets())[1]
    assert main(["doctor"]) == 0
    assert "1 train, 1 val, 0 test" in capsys.readouterr().out


def test_folders_that_are_wrong(data, monkeypatch):
    (data / "train").rename(data / "elsewhere")
    assert "has no training images" in problems(resources.datasets())[0]
    monkeypatch.setenv("SEMISEG_DATA", str(data / "nowhere"))
    assert "is no folder" in problems(resources.datasets())[0]


def test_roots_of_local_yaml(home, data, monkeypatch):
    monkeypatch.delenv("SEMISEG_DATA")
    local = home / "local.yaml"
    local.write_text(f"data_roots:\n  camvid: {data}\n  voc: nowhere\n  fields: nowhere\n")
    section = resources.datasets()
    assert section.facts["camvid"]["train"] == 1
    assert "to add one" not in section.facts
    text = "\n".join(problems(section))
    assert "correct data_roots.voc" in text
    assert "data_roots.fields is no folder: nowhere" in text
    local.write_text("a: [")
    assert "local.yaml cannot be read" in problems(resources.datasets())[0]
    for content in ("", "- a\n", "data_roots: 3\n"):
        local.write_text(content)
        assert problems(resources.datasets()) == []


def test_derived_list_is_a_note_and_nothing_is_printed(home, capfd):
    folder = home / "voc"
    for below in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (folder / below).mkdir(parents=True)
    for stem in "ab":
        PIXEL.save(folder / "JPEGImages" / f"{stem}.jpg")
        PIXEL.convert("L").save(folder / "SegmentationClassAug" / f"{stem}.png")
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    (home / "local.yaml").write_text(f"data_roots: {{voc: {folder}}}\n")
    section = resources.datasets()
    assert section.facts["voc"] == {"train": 1, "val": 1}
    assert "neither trainaug.txt nor train_aug.txt" in section.facts["voc, note 1"]
    assert capfd.readouterr().err == ""


def test_weights_and_cache(home):
    assert resources.weights().problems == []
    hub = home / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / "resnet50-0676ba61.pth").write_bytes(b"x" * 100)
    (hub / "empty.pth").touch()
    section = resources.weights()
    assert section.facts["resnet50-0676ba61.pth_bytes"] == 100
    assert "empty.pth is empty" in problems(section)[0]
    store = home / "cache" / "decoded" / "voc-1"
    store.mkdir(parents=True)
    (store / "images").write_bytes(b"x" * 70)
    assert resources.cache().facts["voc-1_bytes"] == resources.cache().facts["total_bytes"] == 70


def test_state_of_wandb(home, monkeypatch):
    assert resources.wandb().facts["logged in"] is False
    monkeypatch.setenv("WANDB_MODE", "online")
    assert "wandb login" in problems(resources.wandb())[0]
    (home / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password made-up-entry\n")
    (home / ".netrc").chmod(0o600)
    section = resources.wandb()
    assert section.facts["logged in"] is True
    assert section.problems == []
    assert "made-up-entry" not in doctor.as_json([section], True)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert resources.wandb().facts["logged in"] is False
    monkeypatch.setenv("WANDB_API_KEY", "made-up-key")
    assert resources.wandb().facts["logged in"] is True
    assert "made-up-key" not in doctor.as_json([resources.wandb()], True)
    (home / ".netrc").write_text("not a netrc file")
    monkeypatch.delenv("WANDB_API_KEY")
    assert resources.wandb().facts["logged in"] is False
