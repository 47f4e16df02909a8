"""Published partitions are checked with the settings, before any data is there."""

import pytest

from semiseg.config.check import Checker
from semiseg.config.compose import Request, draft
from semiseg.declare import declared
from semiseg.settings import RunSettings
from semiseg.splits.lists import write_lists
from semiseg.splits.manifest import family_names, manifest
from semiseg.splits.published_lists import folder_of


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))


def faults(*words):
    return [str(fault) for fault in Checker().settings(draft(Request(words)))]


def missing(*words):
    """Faults of a config but for the dataset's folder."""
    found = Checker().everything(draft(Request(words)))
    return [str(fault) for fault in found if fault.key != "dataset"]


def test_families_are_those_of_the_manifest():
    (fault,) = Checker().everything(draft(Request(("split_family=evry",))))
    assert fault.expected == f"expected one of: {', '.join(family_names())}."
    assert declared(RunSettings)["split_family"].default == family_names()[0] == fault.near == "every"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dataset=voc split_family=cca", "Did you mean cac?"),
        ("dataset=voc split_family=cac split=1/7", "nearest: 1/8."),
        ("dataset=voc split_family=cac split=1/8 split_id=x", "has the ids 0, 1, 2; nearest: 0."),
        (
            "dataset=camvid split_family=u2pl split=1/8",
            "its lists are of dataset=voc and cityscapes, not of camvid.",
        ),
        ("dataset=voc split_family=cps split=1/8 split_lists=gone", "no such folder."),
        ("dataset=voc val_subset=tiny", "expected valtiny or null."),
        ("dataset=camvid val_subset=valtiny", "is of dataset=voc and cityscapes, not of camvid."),
        ("split_family=list", "needs the folder that holds labeled.txt."),
    ],
)
def test_faults(words, message):
    (fault,) = faults(*words.split())
    assert message in " ".join(fault.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "dataset=voc split_family=cac split=1/8",
            "semiseg splits import cac --from Context-Aware-Consistency",
        ),
        ("dataset=voc split_family=u2pl split=92", "semiseg splits import clean --from ST-PlusPlus"),
    ],
)
def test_lists_that_are_not_imported_are_told_with_missing_data(words, message):
    """The config alone can be printed without them."""
    assert faults(*words.split()) == []
    told = " ".join(" ".join(map(str, Checker().everything(draft(Request(tuple(words.split())))))).split())
    assert message in told
    assert "no folder given for dataset voc" in told


@pytest.mark.parametrize(
    "words",
    [
        "dataset=voc split_family=cps split=1/8",
        "dataset=voc split_family=cac split=1464",
        "dataset=voc split_family=shuffled split=1/106 split_id=2 val_subset=valtiny",
        "dataset=cityscapes split_family=every split=1/7",
        "dataset=voc split_family=sbd split=1464",
    ],
)
def test_rules_need_no_import(words):
    assert missing(*words.split()) == []


def test_a_wrong_split_is_told_once():
    assert len(faults("dataset=voc", "split_family=cac", "split=x")) == 1


def test_imported_lists_are_enough(tmp_path):
    partition = manifest().find("cityscapes", "cps", "1/8", "0")
    write_lists(folder_of(partition, tmp_path / "here"), {"unlabeled.txt": (), "labeled.txt": ()})
    words = ["dataset=cityscapes", "split_family=cps", "split=1/8"]
    assert len(missing(*words)) == 1
    assert missing(*words, "split_lists=here") == []
