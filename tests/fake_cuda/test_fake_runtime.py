"""Where there can be no fake CUDA, the reason is given, and nothing is built."""

import shutil
import sys
from pathlib import Path

import fake_runtime
import pytest
from fake_runtime import NoFakeCuda, environment


def refused(folder: Path) -> str:
    with pytest.raises(NoFakeCuda) as caught:
        environment(folder)
    assert not list(folder.glob("*.so*"))
    return str(caught.value)


def test_other_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Linux" in refused(tmp_path)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "C++ compiler" in refused(tmp_path)


def test_without_cuda_in_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(fake_runtime, "_site", lambda package: tmp_path)
    assert "CUDA build" in refused(tmp_path)
    (tmp_path / "torch/lib").mkdir(parents=True)
    (tmp_path / "torch/lib/libtorch_cuda.so").touch()
    assert "cuda_runtime_api.h" in refused(tmp_path)


def test_what_cannot_be_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("this is no C++")
    monkeypatch.setattr(fake_runtime, "SOURCE", broken)
    monkeypatch.setattr(fake_runtime, "_site", lambda package: tmp_path)
    (tmp_path / "torch/lib").mkdir(parents=True)
    (tmp_path / "torch/lib/libtorch_cuda.so").touch()
    headers = tmp_path / "nvidia/cu/include"
    headers.mkdir(parents=True)
    (headers / "cuda_runtime_api.h").touch()
    if not any(map(shutil.which, fake_runtime.COMPILERS)):
        pytest.skip("needs a C++ compiler")
    assert "cannot build broken.cpp" in refused(tmp_path)
