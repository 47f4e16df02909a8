"""The manifest: every fact in it follows from the published lists or from a rule."""

import hashlib
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from id_dataset import stems

from semiseg.errors import UserError
from semiseg.splits import manifest as module
from semiseg.splits.dms import difference_maximized
from semiseg.splits.manifest import IdList, family_names, manifest, read_manifest
from semiseg.splits.rules import shuffled
from semiseg.splits.split import make_split

SHIPPED = Path(module.__file__).parents[3] / "data_splits" / "manifest.yaml"
KNOWN = manifest()
RAW = yaml.safe_load(SHIPPED.read_text())
RULED = [each for each in KNOWN.partitions if each.rule and each.stored_as == each.key]


@pytest.fixture
def pools(voc, cityscapes, ade20k):
    return {"voc": voc, "cityscapes": cityscapes, "ade20k": ade20k}


def test_pools_are_those_of_the_datasets(pools):
    for name, dataset in pools.items():
        train = KNOWN.pools[name]["trainaug" if name == "voc" else "train"]
        assert train.fits(dataset.ids("train"))
        assert KNOWN.pools[name]["val"].fits(dataset.ids("val"))
    assert KNOWN.pools["cityscapes"]["test"].fits(pools["cityscapes"].ids("test"))
    assert KNOWN.pools["voc"]["train"].fits(pools["voc"].listed("train"))


@pytest.mark.parametrize("each", RULED, ids=lambda each: f"{each.dataset} {each}")
def test_rules_make_the_partitions_of_the_manifest(pools, each):
    made = make_split(pools[each.dataset], each.split, each.family, each.split_id)
    assert each.labeled.fits(made.labeled)
    assert each.unlabeled.fits(made.unlabeled)


@pytest.mark.parametrize("each", [each for each in RULED if each.dataset == "voc"], ids=str)
def test_share_of_vocs_own_images(pools, each):
    made = make_split(pools["voc"], each.split, each.family, each.split_id)
    assert len({*made.labeled} & {*pools["voc"].listed("train")}) == each.clean


def test_samples_of_dmt_are_those_of_the_manifest(voc):
    pool = voc.ids("train")
    assert len(RAW["dms"]["voc"]) == 12
    for key, sides in RAW["dms"]["voc"].items():
        split, split_id = key.split(" ")
        labeled, _ = shuffled(pool, split, int(split_id))
        samples = difference_maximized(pool, labeled, split, split_id)
        known = [IdList(*sides[side]) for side in ("left", "right")]
        assert all(each.fits(sample) for each, sample in zip(known, samples, strict=True))


def test_other_lists(published):
    folders = {"DATA": "cps", "dataloaders": "cac"}
    for row in RAW["lists"].values():
        root, _, rest = row["file"].partition("/")
        names = [stem.removesuffix("_leftImg8bit") for stem in stems(published / folders[root] / rest)]
        assert IdList(*row["ids"]).fits([f"{name.split('_')[0]}/{name}" for name in names])


def test_valtiny_is_for_validation(voc, cityscapes):
    for dataset, count in ((voc, 20), (cityscapes, 19)):
        chosen = KNOWN.subsets["valtiny"][dataset.info.name]
        assert len(chosen) == count
        assert {*chosen} < {*dataset.ids("val")}


def test_equal_partitions_know_each_other():
    names = {str(each) for each in KNOWN.same_images(KNOWN.find("voc", "clean", "1464", "0"))}
    assert names == {"sbd 1464 0", "cac 1464 0", "stpp 1464 0", "u2pl 1464 0", "unimatch 1464 0"}
    assert [str(each) for each in KNOWN.same_images(KNOWN.find("cityscapes", "u2pl", "1/8", "0"))] == [
        "cac 1/8 0", "stpp 1/8 0",
    ]  # fmt: skip
    assert KNOWN.same_images(KNOWN.find("voc", "cac", "60", "0")) == []


def test_lists_without_hashes_are_equal_to_none():
    assert KNOWN.same_images(KNOWN.find("cityscapes", "dmtc", "100", "0")) == []


def test_an_alias_is_stored_under_the_name_of_the_other():
    alias = KNOWN.find("voc", "u2pl", "92", "0")
    assert alias.stored_as == ("clean", "92", "0")
    assert alias.unlabeled == KNOWN.find("voc", "clean", "92", "0").unlabeled
    assert KNOWN.find("voc", "cac", "1464", "0").rule == "sbd"


def test_families_are_those_of_the_manifest_and_own_lists():
    assert family_names() == (*RAW["families"], "list")


def test_a_partition_is_found_by_its_number_of_labels():
    assert KNOWN.find("voc", "cac", "1323", "2") == KNOWN.find("voc", "cac", "1/8", "2")
    assert KNOWN.find("voc", "shuffled", "1/106", "0").labeled.count == 100


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("voc", "cac", "1/9", "0"), r"split=1/9: the family cac has for voc 1/16, 1/8, 1/4 .*nearest: 1/8"),
        (("voc", "clean", "700", "0"), "nearest: 732"),
        (("voc", "cac", "full", "0"), "nearest: 1/4"),
        (("voc", "cac", "1/8", "7"), "split_id=7: split=1/8 of the family cac has the ids 0, 1, 2"),
        (
            ("cityscapes", "clean", "92", "0"),
            "split_family=clean: its lists are of dataset=voc, not of cityscapes",
        ),
        (("camvid", "cac", "1/8", "0"), "Families for camvid: every, shuffled, or list"),
    ],
)
def test_what_is_not_published_is_refused(asked, message):
    with pytest.raises(UserError, match=message):
        KNOWN.find(*asked)


def test_hash_is_of_ids_joined_by_line_feeds():
    assert IdList(2, hashlib.sha256(b"a\nb").hexdigest()).fits(("a", "b"))
    assert not IdList(2, hashlib.sha256(b"a\nb").hexdigest()).fits(("b", "a"))
    assert IdList(2, None).fits(("b", "a"))
    assert not IdList(2, None).fits(("b",))


def damage(change):
    raw = deepcopy(RAW)
    change(raw)
    return yaml.safe_dump(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(version=2), "version 2; this semiseg reads version 1"),
        (lambda raw: raw.update(more=1), "unknown key more"),
        (lambda raw: raw.pop("pools"), "'pools' is missing"),
        (
            lambda raw: raw["families"]["cac"]["voc"]["1/8 0"].update(labeled=[1323, "2558"]),
            "number of ids, SHA-256",
        ),
        (
            lambda raw: raw["families"]["cac"]["voc"]["1/8 0"].update(labled=1),
            "cac 1/8 0 has the unknown key labled",
        ),
        (lambda raw: raw["families"]["u2pl"]["voc"]["92 0"].update(alias="clean 93 0"), "'93 0' is missing"),
        (lambda raw: raw["families"]["cac"]["voc"]["1/8 0"].pop("file"), "has neither rule nor file"),
        (lambda raw: raw["families"]["every"].update(rule="evry"), "has the rule evry"),
        (lambda raw: raw["families"]["cac"]["pool"].update(voc="train"), "does not divide its pool of 1464"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, change, message):
    file = tmp_path / "manifest.yaml"
    file.write_text(damage(change))
    with pytest.raises(UserError, match=message):
        read_manifest(file)


def test_a_manifest_that_is_no_yaml(tmp_path):
    (tmp_path / "manifest.yaml").write_text("a: [")
    with pytest.raises(UserError, match="cannot be used"):
        read_manifest(tmp_path / "manifest.yaml")
    with pytest.raises(UserError, match="No such file"):
        read_manifest(tmp_path / "none.yaml")
