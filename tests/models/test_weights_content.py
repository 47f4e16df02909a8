"""Files given for weights that hold something else, or weights that no network can use."""

import argparse
import gzip
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from semiseg.engine.checkpoint import load_bundle
from semiseg.errors import UserError
from semiseg.models.weights import read_state

State = dict[str, torch.Tensor]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 46830571\n"


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/resnet18.pth", b"0")


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "resnet18.pth")


OTHER_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "saved page": (
        lambda path: path.write_text("<html><title>403\n Forbidden</title></html>"),
        r"text \(HTML\) file with the title '403 Forbidden', not weights: .*Download again",
    ),
    "doctype": (lambda path: path.write_text("\n<!DOCTYPE html>\n<p>quota"), r"text \(HTML\) file, not"),
    "XML": (lambda path: path.write_text("<?xml version='1.0'?><Error/>"), r"text \(XML\) file"),
    "JSON": (
        lambda path: path.write_text('{"message": "Not Found"}'),
        r"text \(JSON\) file that begins with",
    ),
    "text": (lambda path: path.write_text("Entry not found"), "text file that begins with 'Entry not found'"),
    "long text": (lambda path: path.write_text("xé" * 4000), "text file"),
    "empty": (lambda path: path.write_bytes(b""), r"empty \(0 bytes\).*again"),
    "LFS": (lambda path: path.write_text(POINTER), "pointer of Git LFS.*git lfs pull"),
    "ZIP": (_zip, r"ZIP archive \(weights/resnet18.pth\).*Unpack"),
    "tar": (_tar, "tar archive.*Unpack"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"weights")), "gzip archive"),
    "image": (lambda path: Image.new("RGB", (2, 2)).save(path, "PNG"), r"image \(PNG\)"),
    "numpy": (lambda path: np.savez(path.open("wb"), w=np.ones(2)), r"arrays of numpy \(w.npy\)"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1], 4)), "pickle that torch.save has not written"),
}


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_named(tmp_path: Path, kind: str, ending: str) -> None:
    write, expected = OTHER_FILES[kind]
    write(tmp_path / f"net{ending}")
    for read in (read_state, load_bundle):
        with pytest.raises(UserError, match=expected) as caught:
            read(tmp_path / f"net{ending}")
        assert f"net{ending}" in str(caught.value)
        assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_and_arrays_of_numpy_are_no_code(tmp_path: Path, state: State, zipped: bool) -> None:
    beside = {
        "best": np.float64(0.3),
        "epoch": np.int64(3),
        "half": np.float16(2),
        "done": np.bool_(True),
        "history": np.arange(3.0),
    }
    torch.save({"state_dict": state, **beside}, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    assert read_state(tmp_path / "net.pth").keys() == state.keys()
    found = load_bundle(tmp_path / "net.pth")
    assert all(np.array_equal(found[key], value) for key, value in beside.items())


def test_objects_in_the_way_are_named_with_their_place(tmp_path: Path, state: State) -> None:
    content = {"state_dict": state, "args": argparse.Namespace(lr=0.1), "more": [Path("runs")]}
    torch.save(content, tmp_path / "net.pth")
    expected = r"argparse.Namespace at args, pathlib.PosixPath at more\[0\].*Save the network's state_dict"
    with pytest.raises(UserError, match=expected):
        read_state(tmp_path / "net.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_network_is_named_as_one(tmp_path: Path, zipped: bool) -> None:
    torch.save(nn.Sequential(nn.Conv2d(1, 1, 1)), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.container\.Sequential.*state_dict"):
        read_state(tmp_path / "net.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.script(nn.Conv2d(1, 1, 1)).save(tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"TorchScript program.*state_dict"):
        read_state(tmp_path / "net.pt")


def test_the_content_counts_and_not_the_ending(tmp_path: Path, state: State) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(state, tmp_path / "net.pth")
    torch.save(state, tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        found = read_state(tmp_path / name)
        assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (float("nan"), torch.float32, "0.weight holds 1 value that is not finite"),
        (float("inf"), torch.bfloat16, "0.weight holds 1 value that is not finite"),
        (1e300, torch.float64, "0.weight holds 1 value that is not finite"),
        (1e6, torch.float16, "0.weight holds 1 value .*float16: save these weights as float32"),
    ],
)
def test_values_that_are_not_finite_are_counted(
    tmp_path: Path, state: State, value: float, kind: torch.dtype, expected: str
) -> None:
    state["0.weight"] = state["0.weight"].to(kind)
    state["0.weight"][0, 0, 0, 0] = value
    torch.save({"model": state}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=expected):
        read_state(tmp_path / "net.pth")


def test_values_of_safetensors_are_looked_at_too(tmp_path: Path, state: State) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    state["1.running_var"][:] = float("inf")
    state["0.bias"][:2] = float("nan")
    save_file(state, tmp_path / "net.safetensors")
    expected = "0.bias holds 2 values that are not finite, 1.running_var holds 4 values"
    with pytest.raises(UserError, match=expected):
        read_state(tmp_path / "net.safetensors")


def test_half_precision_is_read(tmp_path: Path, state: State) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    torch.save(half, tmp_path / "net.pth")
    assert read_state(tmp_path / "net.pth")["0.weight"].dtype == torch.float16
