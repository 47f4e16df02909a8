"""Builds the stand-in for the CUDA runtime, and runs a script with it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

SOURCE = Path(__file__).with_name("runtime.cpp")
COMPILERS = ("g++", "c++", "clang++")

PROBE = """
import os
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    weight = torch.ones(2, device="cuda", requires_grad=True)
    torch.manual_seed(0)
    weight.sum().backward()
    assert weight.grad.device == weight.device
# Threads of the backward pass do not always survive the end of Python here.
os._exit(0)
"""
"""What has to work with the runtime: a device, its generator and a backward pass."""


class NoFakeCuda(Exception):  # noqa: N818 - a reason to skip, not a fault
    """Why there can be no fake CUDA on this machine."""


def environment(folder: Path) -> dict[str, str]:
    """Build the runtime into a folder, unless it is there, and return the variables of a process that has it.

    Raises:
        NoFakeCuda: this machine or its torch has not what it takes.
    """
    library = folder / "libfakecudart.so"
    if not library.is_file():
        _build(library)
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    variables = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }
    # A real device must not be chosen by its number, and no allocator asked for that the runtime lacks.
    for name in ("CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        variables.pop(name, None)
    found = subprocess.run([sys.executable, "-c", PROBE], env=variables, capture_output=True, text=True)
    if found.returncode:
        last = (found.stderr.strip().splitlines() or [f"exit code {found.returncode}"])[-1]
        raise NoFakeCuda(f"torch {metadata.version('torch')} does not run on the stand-in: {last}")
    return variables


def _build(library: Path) -> None:
    if not sys.platform.startswith("linux"):
        raise NoFakeCuda(f"needs Linux, not {sys.platform}")
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise NoFakeCuda(f"needs a C++ compiler: {', '.join(COMPILERS)}")
    packages = _site("torch")
    if not (packages / "torch/lib/libtorch_cuda.so").is_file():
        raise NoFakeCuda("needs a CUDA build of torch; this one is for the CPU")
    # The headers that come with torch's own CUDA libraries; Triton's have the few that these lack.
    headers = [
        found.parent
        for found in (
            *packages.glob("nvidia/*/include/cuda_runtime_api.h"),
            *packages.glob("triton/backends/nvidia/include/cuda_runtime_api.h"),
        )
    ]
    if not headers:
        raise NoFakeCuda(
            "needs cuda_runtime_api.h, which the wheels of torch's CUDA libraries or Triton hold"
        )
    include = [f"-I{headers[0]}", *(word for each in headers[1:] for word in ("-idirafter", str(each)))]
    library.parent.mkdir(parents=True, exist_ok=True)
    part = library.with_name(f"{library.name}.{os.getpid()}")
    # The name of the driver's library, so that torch finds it loaded where it looks for that.
    words = ["-O0", "-w", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1", *include]
    done = subprocess.run(
        [compiler, *words, str(SOURCE), "-o", str(part)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoFakeCuda(f"{compiler} cannot build {SOURCE.name}: {done.stderr.strip().splitlines()[:1]}")
    part.replace(library)


def _site(package: str) -> Path:
    return Path(str(metadata.distribution(package).locate_file("")))


def run_script(script: Path, words: Sequence[str], variables: dict[str, str]) -> None:
    """Run a script of this folder with the runtime.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script.name} {' '.join(words)} failed:\n{done.stdout}{done.stderr}"[-4000:])
