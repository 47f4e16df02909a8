"""``semiseg export``: files that give the run's own predictions without semiseg."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import semiseg
from semiseg.cli import main
from semiseg.cli.export import main as export
from semiseg.errors import RunFailed, UserError
from semiseg.export import graph as export_network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
DOCS = Path(__file__).parents[2] / "docs" / "export.md"
SIZE = (59, 83)


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both files beside it."""
    folder = tmp_path_factory.mktemp("export") / "run"
    shutil.copytree(tiny_run, folder)
    assert main(["export", str(folder)]) == 0
    assert main(["export", str(folder), "--format", "torch"]) == 0
    return folder


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def metadata_of(run: Path, form: str) -> dict[str, object]:
    if form == "onnx":
        session = onnxruntime.InferenceSession(run / "network.onnx")
        return {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    extra = {"metadata.json": ""}
    torch.export.load(run / "network.pt2", extra_files=extra)
    return json.loads(extra["metadata.json"])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_gives_the_predictions_of_the_run(run: Path, picture: np.ndarray, form: str) -> None:
    file = run / {"onnx": "network.onnx", "torch": "network.pt2"}[form]
    apply = export_network.opened(file.read_bytes(), form)
    label, confidence, probabilities = (each[0].numpy() for each in apply(torch.from_numpy(picture)[None]))
    expected = semiseg.load(run).predict(picture)
    assert label.dtype == np.uint8
    assert (label == expected.label).mean() > 0.999
    assert np.abs(confidence - expected.confidence).max() < 1e-4
    assert probabilities.shape == (7, *SIZE)
    assert np.abs(probabilities.sum(0) - 1).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_says_what_it_is(run: Path, form: str) -> None:
    found = metadata_of(run, form)
    bundle = torch.load(run / "checkpoints" / "best.pt", weights_only=True)
    assert (found["classes"], found["palette"]) == (bundle["classes"], bundle["palette"])
    assert (found["evaluator"]["mode"], found["inside"], found["outside"]) == ("whole", "whole images", [])
    assert found["checkpoint_sha256"] == (run / "checkpoints" / "best.pt.sha256").read_text().strip()
    assert found["dataset"] == "shapes"


@pytest.mark.slow
def test_holds_no_path_of_this_machine(run: Path) -> None:
    with zipfile.ZipFile(run / "network.pt2") as archive:
        texts = [archive.read(name) for name in archive.namelist()]
    texts.append((run / "network.onnx").read_bytes())
    source = str(Path(export_network.__file__).parent).encode()
    assert not any(source in text or str(run).encode() in text for text in texts)


@pytest.mark.slow
def test_the_lines_of_the_documentation_need_no_semiseg(
    run: Path, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = semiseg.load(run).predict(picture)
    for file in ("network.onnx", "network.pt2"):
        shutil.copy(run / file, tmp_path)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "semiseg"]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert len([line for line in block.splitlines() if line.strip()]) <= 12
        exec(block.replace("photo.jpg", "photo.png"), {})
        written = Image.open("label.png")
        assert (np.asarray(written) == expected.label).mean() > 0.999
        assert written.getpalette()[:6] == [*expected.palette[0], *expected.palette[1]]
        Path("label.png").unlink()


@pytest.mark.slow
def test_replaces_a_file_only_if_told_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"network\.onnx is there already\. Replace it with --force"):
        export([str(run)])
    (tmp_path / "network.pt2").write_text("old")
    words = ["--format", "torch", "--force", "--scales", "0.5", "--checkpoint", "last"]
    assert export([str(run), *words, "-o", str(tmp_path / "network.pt2")]) == 0
    output = capsys.readouterr().out
    assert len(re.findall(r"\d x \d+x\d+ pixels: probabilities differ by at most", output)) == 3
    assert "whole images, scales 0.5" in output
    found = metadata_of(tmp_path, "torch")
    assert (found["evaluator"]["scales"], found["checkpoint"]) == ([0.5], "last")


def test_what_cannot_be_is_named(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        export([str(tmp_path)])
    with pytest.raises(UserError, match=r"x\.pt: a file of --format onnx ends in \.onnx"):
        export([str(tiny_run), "-o", "x.pt"])
    with pytest.raises(UserError, match=r"evaluator\.mode=slide: .*32 pixels[\s\S]*Add --mode whole"):
        export([str(tiny_run), "--mode", "slide", "--window", "32", "-o", str(tmp_path / "x.onnx")])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x\.onnx cannot be written .*Choose another file by -o"):
        export([str(tiny_run), "-o", str(tmp_path / "file" / "x.onnx")])
    with pytest.raises(UserError, match="export --help"):
        export([str(tiny_run), "--format", "tflite"])


def test_missing_packages_are_named(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_network, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UserError, match=r'needs onnxscript: pip install "semiseg\[export\]"'):
        export([str(tiny_run), "-o", str(tmp_path / "x.onnx")])


@pytest.mark.slow
def test_a_file_that_predicts_otherwise_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = run / "network.pt2"
    monkeypatch.setattr(export_network, "trace", lambda *_: None)
    monkeypatch.setattr(export_network, "as_torch", lambda *_: network.read_bytes())
    words = ["--format", "torch", "--scales", "1.5", "-o", str(tmp_path / "x.pt2")]
    with pytest.raises(RunFailed, match="is not the trained one"):
        export([str(run), *words])
    assert list(tmp_path.iterdir()) == []
