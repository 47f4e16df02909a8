"""Published partitions in training: imported lists, partitions that rules make, and small validation sets."""

import hashlib

import pytest
from id_dataset import Ids, stems

from semiseg.errors import UserError
from semiseg.splits.importing import import_family
from semiseg.splits.lists import refuse_other_lists, write_lists
from semiseg.splits.manifest import manifest
from semiseg.splits.published_lists import cache_dir, find_imported, folder_of, unlike_published
from semiseg.splits.split import make_split

ORIGINS = {"cps": "cps", "cps_clean": "cps", "cac": "cac", "clean": "stpp", "stpp": "stpp", "u2pl": "u2pl"}


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory):
    """Root of all published lists that no rule makes."""
    root = tmp_path_factory.mktemp("data_splits")
    for family, origin in ORIGINS.items():
        import_family(family, published / origin, root)
    return root


@pytest.fixture
def pools(voc, cityscapes):
    return {"voc": voc, "cityscapes": cityscapes}


PARTITIONS = [
    rows[place]
    for name in ORIGINS
    for dataset in ("voc", "cityscapes")
    if (rows := manifest().of(dataset, name))
    for place in sorted({0, len(rows) - 1})
]
"""The first and the last one of each family: importing has compared all of them with their hashes."""


@pytest.mark.slow
@pytest.mark.parametrize("each", PARTITIONS, ids=lambda each: f"{each.dataset} {each}")
def test_imported_partitions_can_be_trained_on(pools, imported, each):
    made = make_split(pools[each.dataset], each.split, each.family, each.split_id, lists_root=imported)
    assert each.labeled.fits(made.labeled)
    assert each.unlabeled.fits(made.unlabeled)
    assert (made.family, made.name, made.split_id) == each.key
    if each.clean is not None:
        assert len({*made.labeled} & {*pools["voc"].listed("train")}) == each.clean


STPP_SHA1 = {
    ("voc", "1/16"): "e7d3f5c0f08b a305e0c23da9 0a12f423b588",
    ("voc", "1/8"): "c62365df1f6a a8a86f39362b 84ad6848755b",
    ("voc", "1/4"): "7ce9effcfa81 dd239d3d4c6e 4416f8028d1d",
    ("voc", "92"): "84057fcd0e49 752cf0c1d439 3ff3233286e9",
    ("voc", "183"): "4e6f730e249c",
    ("voc", "366"): "2a4c7848b107",
    ("voc", "732"): "9b3141cdf7af",
    ("voc", "1464"): "6ed871ae2d09",
    ("cityscapes", "1/30"): "8853fbfd7bd1 423854415103 a495caa48efc",
    ("cityscapes", "1/8"): "77d9265166af 7acc79de6c02 0c3757b5ec9f",
    ("cityscapes", "1/4"): "e3f8aa37d541 5d45308597fb 3a6753f063f4",
}


def sha1(stems):
    return hashlib.sha1("\n".join(sorted(stems)).encode()).hexdigest()[:12]


SAME_IN_CAC = [("voc", "1/16"), ("voc", "1/8"), ("voc", "1/4"), ("cityscapes", "1/8"), ("cityscapes", "1/4")]


@pytest.mark.golden("ST++ lists and epochs")
@pytest.mark.parametrize(
    ("family", "dataset", "split"),
    [*(("stpp", *each) for each in STPP_SHA1), *(("cac", *each) for each in SAME_IN_CAC)],
)
def test_labeled_stems_of_stpp_and_cac(pools, imported, family, dataset, split):
    for split_id, expected in enumerate(STPP_SHA1[dataset, split].split()):
        labeled = make_split(pools[dataset], split, family, split_id, lists_root=imported).labeled
        assert sha1([image_id.split("/")[-1] for image_id in labeled]) == expected


CPS_MD5 = {
    "1/2": "45d12c9e0cdbe0adbbff4fe5072de856",
    "1/4": "3322da403d024cdfc3ef863a12476060",
    "1/8": "8c080ad05cb2198f67ee0af7cf867754",
    "1/16": "f681251f9be850f16015709c987d92bd",
}


@pytest.mark.golden("CPS splits")
@pytest.mark.parametrize("split", CPS_MD5)
def test_cityscapes_lists_of_cps(cityscapes, imported, split):
    labeled = make_split(cityscapes, split, "cps", lists_root=imported).labeled
    assert md5_as_cps("train", [image_id.split("/")[1] for image_id in labeled]) == CPS_MD5[split]


@pytest.mark.golden("CPS splits")
@pytest.mark.parametrize(
    ("part", "expected"),
    [("train", "96ec49b14e961421bf36cb3fbcf8af13"), ("val", "9ae85f847dda4c86ba088768e895a459")],
)
def test_order_of_cps_for_cityscapes(cityscapes, imported, published, part, expected):
    names = stems(published / f"cps/city/config_new/{part}.txt")
    assert md5_as_cps(part, names) == expected
    assert {name.split("_")[0] + "/" + name for name in names} == {*cityscapes.ids(part)}
    if part == "train":
        half = make_split(cityscapes, "1/2", "cps", lists_root=imported)
        assert [image_id.split("/")[1] for image_id in half.labeled] == list(names[::2])


def md5_as_cps(part, names):
    lines = [f"/images/{part}/{name}.png\t/segmentation/{part}/{name}_gtFine.png" for name in names]
    return hashlib.md5("\n".join(lines).encode()).hexdigest()


VAL_SHA1 = {"voc": "93298139809d", "cityscapes": "7a7abbc4dded"}


@pytest.mark.golden("ST++ lists and epochs")
@pytest.mark.parametrize("dataset", VAL_SHA1)
def test_validation_images_of_stpp(pools, dataset):
    assert sha1([image_id.split("/")[-1] for image_id in pools[dataset].ids("val")]) == VAL_SHA1[dataset]


CAC_MD5 = {
    "voc_splits0/1464": "ac4c7a5654bc68b8b22da2278f451e01",
    "voc_splits0/1323": "148103444be1144ef0cf460ca1222314",
    "voc_splits1/1323": "8edd4c3bfb856a3fe49624dba695246d",
    "voc_splits2/1323": "48f9dcee1641c9405ddd409960247bf6",
    "voc_splits0/662": "e3667ed3e5c14de56d159abed2b7ff43",
    "voc_splits1/662": "5476932a1a5952ba67245b7995bb7509",
    "voc_splits2/662": "c680aba7971f89313e32936bd022f8a1",
    "voc_splits0/2645": "06154ae576ff458090fc7139bb33660a",
    "voc_splits1/2645": "f75457a00b61c7c6e2239d6dd3cfd967",
    "voc_splits2/2645": "5d3ed7b7748110d25564990e4d18d046",
    "city_splits0/372": "5404029e8a0344cad5709030bc551802",
    "city_splits1/372": "8367ab98035b906d3ac622cb5e9baf2f",
    "city_splits2/372": "bd237bfe72890cc776b207430f995bf9",
    "city_splits0/744": "27919c937228f0353baaef9786fa3874",
    "city_splits1/744": "0f9ac90bf8e12ae15a797f9a13d4594c",
    "city_splits2/744": "4457d8a0336ca45e7eb3046c09cbfa9d",
}


@pytest.mark.golden("CAC lists")
@pytest.mark.parametrize("file", CAC_MD5)
def test_lists_of_cac_written_as_shipped(pools, imported, file):
    """The imported ids, in CAC's form of a line, are the shipped file to the last byte."""
    folder, count = file.split("/")
    dataset = "voc" if folder.startswith("voc") else "cityscapes"
    made = make_split(pools[dataset], count, "cac", folder[-1], lists_root=imported)
    assert md5_as_cac(dataset, "train", made.labeled) == CAC_MD5[file]


CAC_VAL_MD5 = {"voc": "53d7327483929cb14e992cc3da52e2f2", "cityscapes": "c262b56f06227a2376bf3fe243a1b6a6"}


@pytest.mark.golden("CAC lists")
@pytest.mark.parametrize("dataset", CAC_VAL_MD5)
def test_validation_lists_of_cac_written_as_shipped(pools, dataset):
    assert md5_as_cac(dataset, "val", pools[dataset].ids("val")) == CAC_VAL_MD5[dataset]


def md5_as_cac(dataset, part, ids):
    line = (
        "/JPEGImages/{1}.jpg /SegmentationClassAug/{1}.png\n"
        if dataset == "voc"
        else "leftImg8bit/{0}/{1}_leftImg8bit.png gtFine/{0}/{1}_gtFine_labelTrainIds.png\n"
    )
    return hashlib.md5("".join(line.format(part, image_id) for image_id in ids).encode()).hexdigest()


def test_lists_are_looked_for_here_and_in_the_cache(voc, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    assert cache_dir() == tmp_path / "cache" / "splits"
    with pytest.raises(
        UserError, match=r"Import them once:\ngit clone .*\nsemiseg splits import clean --from ST-Plus"
    ):
        make_split(voc, "92", "u2pl")
    import_family("clean", published / "stpp", cache_dir())
    assert len(make_split(voc, "92", "u2pl").labeled) == 92
    partition = manifest().find("voc", "clean", "92", "0")
    assert find_imported(partition) == folder_of(partition, cache_dir())
    import_family("clean", published / "stpp", tmp_path / "data_splits")
    assert find_imported(partition).parts[0] == "data_splits"
    with pytest.raises(UserError, match="are not in elsewhere"):
        make_split(voc, "92", "clean", lists_root="elsewhere")


def test_an_equal_partition_at_hand_is_named(voc, published, tmp_path):
    import_family("cac", published / "cac", tmp_path)
    with pytest.raises(UserError, match="same images: split_family=cac split=1/8 split_id=2"):
        make_split(voc, "1/8", "stpp", 2, lists_root=tmp_path)


def test_a_changed_list_is_refused(voc, published, tmp_path):
    import_family("clean", published / "stpp", tmp_path)
    file = tmp_path / "voc" / "clean" / "92" / "0" / "labeled.txt"
    ids = file.read_text().split()
    file.write_text("\n".join([ids[1], ids[0], *ids[2:]]) + "\n")
    with pytest.raises(UserError, match="is not the published list of clean 92 0 for voc"):
        make_split(voc, "92", "clean", lists_root=tmp_path)


def test_half_of_an_import_is_none(voc, published, tmp_path):
    import_family("clean", published / "stpp", tmp_path)
    folder = tmp_path / "voc" / "clean" / "92" / "0"
    (folder / "unlabeled.txt").unlink()
    with pytest.raises(UserError, match="Import them once"):
        make_split(voc, "92", "clean", lists_root=tmp_path)
    import_family("clean", published / "stpp", tmp_path)
    with (folder / "unlabeled.txt").open("a") as file:
        file.write("one more\n")
    with pytest.raises(
        UserError, match=rf"10491 ids\) is not the published list .*Remove {folder} and import"
    ):
        make_split(voc, "92", "clean", lists_root=tmp_path)


def test_ids_that_the_dataset_lacks_are_named(voc, imported):
    smaller = Ids(voc.ids("train")[:5000], val=voc.ids("val"), name="voc")
    with pytest.raises(UserError, match="images that the dataset does not have:\n  line "):
        make_split(smaller, "1/8", "cac", lists_root=imported)


def test_sbd_labels_vocs_own_images(voc):
    made = make_split(voc, "1464", "sbd")
    assert made.labeled == voc.listed("train")
    assert made.unlabeled == tuple(i for i in voc.ids("train") if i not in set(made.labeled))
    assert len(made.unlabeled) == 9118


def test_partitions_are_of_one_dataset(voc):
    with pytest.raises(
        UserError, match="split_family=cac: its lists are of dataset=voc and cityscapes, not of camvid"
    ):
        make_split(Ids(["a", "b"], name="camvid"), "1/2", "cac")


def test_valtiny_validates_on_few_and_tests_on_the_others(voc, cityscapes):
    for dataset, count in ((voc, 20), (cityscapes, 19)):
        made = make_split(dataset, "1/8", val_subset="valtiny")
        assert len(made.val) == count
        assert {*made.val, *made.test} == {*dataset.ids("val")}
        assert made.labeled == make_split(dataset, "1/8").labeled


@pytest.mark.parametrize(
    ("name", "subset", "message"),
    [
        ("voc", "tiny", "val_subset=tiny: expected valtiny or null"),
        ("camvid", "valtiny", "val_subset=valtiny: is of dataset=voc and cityscapes, not of camvid"),
        ("voc", "valtiny", "20 of its images are not for validation: 2007_000033"),
    ],
)
def test_validation_subsets_that_are_refused(name, subset, message):
    with pytest.raises(UserError, match=message):
        make_split(Ids(["a", "b"], val=["c"], name=name), "1/2", val_subset=subset)


def test_published_names_of_other_images_are_told(voc):
    images = voc.ids("train")
    made = make_split(voc, "1/8", "shuffled", 1)
    assert unlike_published("voc", ("shuffled", "1/8", "1"), made.labeled) is None
    fewer = make_split(Ids(images[1:], val=voc.ids("val"), name="voc"), "1/8", "shuffled", 1)
    told = unlike_published("voc", ("shuffled", "1/8", "1"), fewer.labeled)
    assert told is not None
    assert "NOT the published partition of this name (1,322 labeled images)" in told
    assert unlike_published("voc", ("shuffled", "1/3", "0"), images) is None
    assert unlike_published("voc", ("list", "1/8", "1"), images) is None
    assert unlike_published("shapes", ("every", "1/8", "0"), images) is None


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x cannot be written \(.*file is a file\)"):
        write_lists(tmp_path / "file" / "x", {"labeled.txt": ("a",)})


def test_lists_are_written_whole_and_never_over_others(tmp_path):
    lists = {"unlabeled.txt": ("b", "c"), "labeled.txt": ("a",)}
    assert not refuse_other_lists(tmp_path / "x", lists)
    write_lists(tmp_path / "x", lists)
    assert (tmp_path / "x" / "unlabeled.txt").read_text() == "b\nc\n"
    assert refuse_other_lists(tmp_path / "x", lists)
    with pytest.raises(UserError, match=r"labeled\.txt holds other ids than the 1 that would be written"):
        refuse_other_lists(tmp_path / "x", {"labeled.txt": ("b",)})
