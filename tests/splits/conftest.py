"""The published id lists as datasets."""

import pytest
from id_dataset import Ids, stems


@pytest.fixture(scope="session")
def published(shared_data):
    """Folder of the lists that the repositories cac, cps, stpp, u2pl and unimatch publish."""
    return shared_data("published_splits")


@pytest.fixture(scope="session")
def voc(published):
    """VOC by its ids: 10,582 of trainaug sorted, 1,449 for validation."""
    pascal = published / "stpp/pascal"
    train = [stem for name in ("labeled", "unlabeled") for stem in stems(pascal / f"1_8/split_0/{name}.txt")]
    return Ids(
        sorted(train), val=stems(pascal / "val.txt"), name="voc", train=stems(pascal / "1.4k/labeled.txt")
    )


@pytest.fixture(scope="session")
def cityscapes(published):
    """Cityscapes by its ids: sorted by city and file."""
    folder = published / "cps/city/config_new"
    parts = (sorted(stems(folder / f"{part}.txt")) for part in ("train", "val", "test"))
    train, val, test = ([f"{stem.split('_')[0]}/{stem}" for stem in part] for part in parts)
    return Ids(train, val=val, test=test, name="cityscapes")


@pytest.fixture(scope="session")
def ade20k(published):
    """ADE20K by its ids: sorted."""
    folder = published / "unimatch/ade20k"
    return Ids(sorted(stems(folder / "all/labeled.txt")), val=stems(folder / "val.txt"), name="ade20k")
