"""Inspection of what a run computes with: packages, devices, memory, disk and threads.

Importing this needs nothing but Python's own modules, so that it works where packages are missing or broken.
"""

import importlib
import os
import platform
import re
import shutil
import sys
import warnings
from importlib import metadata
from pathlib import Path

from semiseg.cores import LITTLE_SHARED_MEMORY, SHARED_MEMORY
from semiseg.doctor.findings import Section

OPENCV = (
    "opencv-python",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
)
IMPORTED = {"torch": "torch", "torchvision": "torchvision", "cv2": "opencv-python-headless"}
"""Modules that may be installed and still not load, with their packages."""

OPTIONAL = ("timm", "safetensors", "onnx", "onnxruntime", "rasterio")
LITTLE_MEMORY = 2 * 2**30
LITTLE_DISK = 5 * 2**30
NVIDIA = Path("/proc/driver/nvidia/version")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")


def versions() -> Section:
    """Versions of Python and of the packages, compared with what semiseg requires."""
    section = Section("versions", {"python": platform.python_version(), "platform": platform.platform()})
    try:
        section.facts["semiseg"] = metadata.version("semiseg")
        required = [text for text in metadata.requires("semiseg") or () if "extra ==" not in text]
    except metadata.PackageNotFoundError:
        section.problem("semiseg runs without being installed", "python -m pip install -e .")
        required = []
    for requirement in required:
        _check_requirement(section, requirement.partition(";")[0].strip())
    section.facts |= {name: found for name in OPTIONAL if (found := _version(name))}
    _check_opencv(section)
    for module, package in IMPORTED.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken installation raises anything
            section.problem(
                f"{module} cannot be imported: {error}",
                f"python -m pip install --force-reinstall {package}",
                fatal=True,
            )
    return section


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_requirement(section: Section, requirement: str) -> None:
    name, limits = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
    found = _version(name)
    section.facts[name] = found
    if found is None or not all(_within(found, limit.strip()) for limit in limits.split(",") if limit):
        state = f"has version {found}" if found else "is not installed"
        section.problem(
            f"{name} {state}; {limits or 'any version'} is required",
            f'python -m pip install "{requirement}"',
            fatal=True,
        )


def _within(version: str, limit: str) -> bool:
    """Whether a version satisfies a limit such as ``>=2.1``; suffixes of its numbers do not count."""
    sign, bound = re.fullmatch(r"(==|>=|<)\s*(.+)", limit).groups()  # type: ignore[union-attr]
    found, named = _version_numbers(version), _version_numbers(bound)
    return {"==": found == named, ">=": found >= named, "<": found < named}[sign]


def _version_numbers(version: str) -> list[int]:
    numbers = [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]
    return numbers + [0] * (4 - len(numbers))


def _check_opencv(section: Section) -> None:
    """Two wheels of OpenCV own the same files; which one's are there depends on the order of installation."""
    there = [name for name in OPENCV if _version(name)]
    section.facts |= {name: _version(name) for name in there}
    if len(there) > 1:
        section.problem(
            f"{' and '.join(there)} are installed side by side and overwrite each other's files",
            f"python -m pip uninstall -y {' '.join(there)} && python -m pip install opencv-python-headless",
        )


def devices() -> Section:
    """GPUs that torch can use; an NVIDIA GPU that it cannot use is a problem."""
    section = Section("devices")
    try:
        import torch
    except Exception:  # reported by ``versions``
        return section
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    section.facts["cpu"] = platform.processor() or platform.machine()
    section.facts["torch built for"] = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    for index in range(count):
        found = torch.cuda.get_device_properties(index)
        section.facts[f"cuda:{index}"] = f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
    if count == 0 and NVIDIA.exists():
        reason = str(caught[0].message).splitlines()[0] if caught else "torch sees no device"
        if torch.version.cuda is None:
            section.problem(
                "there is an NVIDIA driver, but this torch is built for CPU",
                "install a CUDA build: the command is at pytorch.org/get-started",
            )
        else:
            section.problem(
                f"there is an NVIDIA driver, but torch cannot use it: {reason}",
                "compare nvidia-smi with the CUDA version above, and look at CUDA_VISIBLE_DEVICES",
            )
    return section


def memory() -> Section:
    """Memory of the machine or container, and what data loading workers share."""
    from semiseg.data.store import memory_bytes

    total = memory_bytes()
    section = Section("memory", {"total_bytes": total, "available_bytes": _available(total)})
    if (available := section.facts["available_bytes"]) is not None and available < LITTLE_MEMORY:
        section.problem(
            f"only {available / 2**30:.1f} GiB of memory are free",
            "end other programs, or train smaller crops",
        )
    shared = SHARED_MEMORY
    if shared.is_dir():
        section.facts["shared_bytes"] = shutil.disk_usage(shared).total
        if section.facts["shared_bytes"] < LITTLE_SHARED_MEMORY:
            section.problem(
                f"{shared} has only {section.facts['shared_bytes'] / 2**20:.0f} MiB: loading workers may die of it",
                "docker run --shm-size=8g, or trainer.num_workers=0",
            )
    return section


def _available(total: int) -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return min(int(found[1]) * 1024, total) if found else None


def disk_space(places: dict[str, Path]) -> Section:
    """Free space where runs, decoded images and weights are kept.

    Args:
        places: Folders by their use; of one that does not exist, the nearest parent is inspected.
    """
    section = Section("disk")
    for use, place in places.items():
        there = next(folder for folder in (place, *place.parents) if folder.is_dir())
        free = shutil.disk_usage(there).free
        section.facts[f"{use}_free_bytes"] = free
        if not os.access(there, os.W_OK):
            section.problem(f"{use}: {there} cannot be written", _elsewhere(use))
        elif free < LITTLE_DISK:
            section.problem(
                f"{use}: only {free / 2**30:.1f} GiB are free in {there}", f"make room, or {_elsewhere(use)}"
            )
    return section


def _elsewhere(use: str) -> str:
    return {
        "runs": "train in another directory, or with run_dir=PATH",
        "cache": "set SEMISEG_CACHE to another folder",
        "weights": "set TORCH_HOME to another folder",
    }.get(use, "choose another folder")


def threads() -> Section:
    """Number of cores that may be used, and the settings of threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    section = Section("threads", {"cores": cores})
    if quota is not None:
        section.facts["cores that the container may use"] = quota
    section.facts |= {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if "torch" in sys.modules:
        section.facts["torch"] = sys.modules["torch"].get_num_threads()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    taken = int(wanted) if wanted.isdigit() and int(wanted) > 0 else cores
    allowed = min(cores, max(1, int(quota))) if quota is not None else cores
    if taken > allowed:
        section.problem(
            f"{taken} threads would compete for {allowed} cores, which is slower than {allowed} threads",
            f"export OMP_NUM_THREADS={allowed}, or trainer.threads={allowed}",
        )
    return section


def _quota() -> float | None:
    """Number of cores whose time a container gets; ``None`` without a limit."""
    try:
        limit, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return int(limit) / int(period)
    except (OSError, ValueError):
        return None
