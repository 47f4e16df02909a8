"""Inspection of what a run uses: datasets, weights, decoded images, the wandb account. Nothing is fetched."""

import netrc
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from semiseg.config.stored import read_config
from semiseg.contracts.dataset import Part
from semiseg.data.ade20k import Ade20k
from semiseg.data.camvid import CamVid
from semiseg.data.cityscapes import Cityscapes
from semiseg.data.coco import Coco
from semiseg.data.image_files import ROOT_VARIABLE, FileDataset, NoFolderError
from semiseg.data.store_files import cache_folder
from semiseg.data.voc import Voc
from semiseg.doctor.findings import Section
from semiseg.errors import UserError
from semiseg.output import collected_messages

LOCAL_CONFIG = Path("local.yaml")
WANDB_SERVER = "https://api.wandb.ai"


@dataclass(frozen=True)
class KnownDataset:
    """A dataset that people download.

    Args:
        build: Function that builds the dataset from its folder.
        counts: Published number of images of each part that has masks.
    """

    build: Callable[[str | None], FileDataset]
    counts: dict[Part, int]


KNOWN_DATASETS = {
    "camvid": KnownDataset(lambda root: CamVid(root), {"train": 367, "val": 101, "test": 233}),
    "voc": KnownDataset(lambda root: Voc(root), {"train": 10582, "val": 1449}),
    "cityscapes": KnownDataset(lambda root: Cityscapes(root), {"train": 2975, "val": 500}),
    "ade20k": KnownDataset(lambda root: Ade20k(root), {"train": 20210, "val": 2000}),
    "coco": KnownDataset(lambda root: Coco(root), {"train": 118287, "val": 5000}),
}


def datasets() -> Section:
    """Folders of the known datasets, and their numbers of images."""
    section = Section("datasets")
    base = os.environ.get(ROOT_VARIABLE) or None
    section.facts[ROOT_VARIABLE] = base
    if base is not None and not Path(base).expanduser().is_dir():
        section.problem(
            f"{ROOT_VARIABLE}={base} is no folder",
            f"export {ROOT_VARIABLE}=the folder that holds camvid, voc ...",
        )
    roots = _local_roots(section)
    for name, known in KNOWN_DATASETS.items():
        _inspect_dataset(section, name, known, roots.get(name))
    for name in sorted(roots.keys() - KNOWN_DATASETS.keys()):
        section.facts[name] = roots[name]
        if not Path(roots[name]).expanduser().is_dir():
            section.problem(
                f"{LOCAL_CONFIG}: data_roots.{name} is no folder: {roots[name]}", "correct the path"
            )
    if base is None and not roots:
        section.facts["to add one"] = (
            f"dataset.root=PATH, data_roots in {LOCAL_CONFIG}, or {ROOT_VARIABLE}; shapes needs none"
        )
    return section


def _local_roots(section: Section) -> dict[str, str]:
    """Folders that local.yaml in the working directory names, by dataset."""
    if not LOCAL_CONFIG.is_file():
        return {}
    try:
        roots = read_config(LOCAL_CONFIG, "data_roots")
    except UserError as error:
        section.problem(str(error), "correct the file", fatal=True)
        return {}
    return {name: str(root) for name, root in roots.items()}


def _inspect_dataset(section: Section, name: str, known: KnownDataset, root: str | None) -> None:
    """Count the images of a dataset, compare with the published numbers, and look for missing files."""
    try:
        with collected_messages() as notes:
            dataset = known.build(root)
    except NoFolderError as error:
        section.facts[name] = None
        if root is not None:
            section.problem(f"{LOCAL_CONFIG}: {error}", f"correct data_roots.{name}")
        return
    except UserError as error:
        section.facts[name] = "unusable"
        section.problem(f"dataset {name}: {error}", f"docs/datasets.md draws the folders of {name}")
        return
    counts = {part: len(dataset.ids(part)) for part in known.counts}
    section.facts[name] = counts
    section.facts |= {f"{name}, note {number}": note for number, note in enumerate(notes, start=1)}
    if counts != known.counts:
        section.problem(
            f"dataset {name} has {_counts_text(counts)} images; published are {_counts_text(known.counts)}",
            "complete the download and the lists, or do not compare results with published ones",
        )
    wanted = (file for part in counts for image_id in dataset.ids(part) for file in dataset.files(image_id))
    missing = [str(file) for file in wanted if file is not None and not file.is_file()]
    if missing:
        section.problem(
            f"dataset {name} lacks {len(missing)} files, the first of them {missing[0]}",
            "unpack the archives again, or leave these images out with dataset.skip_bad=true",
        )


def _counts_text(counts: dict[Part, int]) -> str:
    return ", ".join(f"{count:,} {part}" for part, count in counts.items())


def weights_folder() -> Path:
    """Folder where torch and torchvision keep published weights."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def weights() -> Section:
    """Files of published weights and their sizes."""
    folder = weights_folder()
    section = Section("weights", {"folder": str(folder)})
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.is_file():
                section.facts[f"{path.name}_bytes"] = path.stat().st_size
                if path.stat().st_size == 0:
                    section.problem(f"{path} is empty", f"rm {path}; it is fetched when it is needed")
    return section


def cache() -> Section:
    """Sizes of the stores of decoded images of all datasets."""
    folder = cache_folder(None)
    section = Section("cache", {"folder": str(folder)})
    stores = sorted(folder.glob("decoded/*/")) if folder.is_dir() else []
    section.facts |= {f"{store.name}_bytes": _size(store) for store in stores}
    section.facts["total_bytes"] = _size(folder)
    return section


def _size(folder: Path) -> int:
    return sum((Path(base) / file).lstat().st_size for base, _, files in os.walk(folder) for file in files)


def wandb() -> Section:
    """State of wandb on this machine, with whether there is a key, never its value."""
    section = Section("wandb")
    try:
        section.facts["version"] = metadata.version("wandb")
    except metadata.PackageNotFoundError:  # reported with the versions
        section.facts["version"] = None
        return section
    server = os.environ.get("WANDB_BASE_URL", WANDB_SERVER)
    logged_in = bool(os.environ.get("WANDB_API_KEY")) or _in_netrc(server)
    section.facts |= {"server": server, "logged in": logged_in, "WANDB_MODE": os.environ.get("WANDB_MODE")}
    if os.environ.get("WANDB_MODE") == "online" and not logged_in:
        section.problem("WANDB_MODE=online without an API key", "wandb login, or tracker.mode=offline")
    return section


def _in_netrc(server: str) -> bool:
    names = [os.environ.get("NETRC", ""), "~/.netrc", "~/_netrc"]
    path = next((path for name in names if name and (path := Path(name).expanduser()).is_file()), None)
    if path is None:
        return False
    try:
        return urlsplit(server).hostname in netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
