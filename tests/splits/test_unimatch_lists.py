"""Lists of UniMatch and CutMix-Seg: computed, imported, and equal to those of families that were known before."""

import hashlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
from id_dataset import Ids, stems

from semiseg.cli import main
from semiseg.contracts.dataset import ids_sha256
from semiseg.errors import UserError
from semiseg.splits import importing
from semiseg.splits import split as splitting
from semiseg.splits.importing import import_family
from semiseg.splits.manifest import IdList, manifest
from semiseg.splits.pickled_order import read_order
from semiseg.splits.rules import first_of_order
from semiseg.splits.split import make_split

KNOWN = manifest()
NAMES = {"voc": "pascal", "cityscapes": "cityscapes", "ade20k": "ade20k", "coco": "coco"}


@pytest.fixture
def lists(published):
    return published / "unimatch"


def folder(lists, each):
    return lists / NAMES[each.dataset] / each.split.replace("/", "_")


def ids(each, path):
    found = path.read_text().split()
    return found if each.dataset == "cityscapes" else stems(path)


@pytest.mark.golden("UniMatch lists")
@pytest.mark.parametrize("each", KNOWN.of(family="unimatch"), ids=lambda each: f"{each.dataset} {each}")
def test_the_manifest_has_the_lists_that_were_published(lists, each):
    assert each.labeled.fits(ids(each, folder(lists, each) / "labeled.txt"))
    if each.dataset != "coco":
        assert each.unlabeled.fits(ids(each, folder(lists, each) / "unlabeled.txt"))


@pytest.mark.golden("UniMatch lists")
@pytest.mark.parametrize("ratio", [16, 8, 4])
def test_the_lists_that_name_u2pl_are_those_of_its_family(lists, ratio):
    each = KNOWN.find("voc", "u2pl", f"1/{ratio}", "0")
    assert each.labeled.fits(stems(lists / f"pascal/u2pl_1_{ratio}/labeled.txt"))
    assert each.unlabeled.fits(stems(lists / f"pascal/u2pl_1_{ratio}/unlabeled.txt"))


# SHA-256 of the ids, first 16 digits: labeled and unlabeled.
ADE20K = {
    64: (316, "1196286178b5673b", "16a9e184b37526e3"),
    32: (631, "e919851b2dd0c007", "b302ecdcd2083ecc"),
    16: (1263, "eed5585662ed4ad7", "8f417a5a9203c6c7"),
    8: (2526, "b15c2b59bd871fc0", "b14e1f28dba90795"),
    4: (5052, "e5beebe4ec8751eb", "150a931a46ac435a"),
    2: (10105, "7c9181ddf128b35e", "fd9340e4bd82ec2f"),
}


@pytest.mark.golden("UniMatch lists")
@pytest.mark.parametrize("ratio", ADE20K)
def test_ade20k_is_divided_by_rule(ratio):
    """The ids need no list: they are numbered without a gap."""
    dataset = Ids([f"ADE_train_{number:08d}" for number in range(1, 20211)], name="ade20k")
    made = make_split(dataset, f"1/{ratio}", "unimatch")
    found = len(made.labeled), ids_sha256(made.labeled)[:16], ids_sha256(made.unlabeled)[:16]
    assert found == ADE20K[ratio]
    half = make_split(dataset, "1/2", "unimatch").labeled
    assert half[: len(made.labeled)] == made.labeled


@pytest.mark.golden("UniMatch lists")
@pytest.mark.parametrize(
    ("pool", "part", "path"),
    [("ade20k", "train", "all/labeled.txt"), ("ade20k", "val", "val.txt"), ("coco", "val", "val.txt")],
)
def test_pools(lists, pool, part, path):
    assert KNOWN.pools[pool][part].fits(sorted(stems(lists / pool / path)))


@pytest.mark.golden("UniMatch lists")
def test_further_images_of_cityscapes(lists):
    extra = (lists / "cityscapes/all/unlabeled.txt").read_text().split()
    assert len(extra) == 19998
    assert ids_sha256(sorted(extra))[:16] == "ef583edebd3d128d"


CUTMIX_SEG = {
    (0, "100"): "a7d2ee1e204cbab7aa607394add3b5a17299e451bf3118c865ff653c4abc1d5d",
    (0, "1/8"): "76d686e5a474c784e80b2479adf13d3eef0935f76e860ab7eb49b8b3aceeb771",
    (0, "1/4"): "72b5de18e83cd906e30c396b2b8cc324da014e2db044e61f3b305d37a0aaf54e",
    (1, "100"): "799d92426817cd8467182ec740e0122f24ad4237931365f70d84afdb5bd12c76",
    (1, "1/8"): "36e1935672577333e96297becf9577f095fdbb7b53279ae8760c866ba00e0de9",
}


@pytest.mark.golden("CutMix-Seg splits")
@pytest.mark.parametrize(("split_id", "split"), CUTMIX_SEG)
def test_cityscapes_of_cutmix_seg(cityscapes, split_id, split):
    made = make_split(cityscapes, split, "cutmix_seg", split_id)
    assert made.sha256["labeled"] == CUTMIX_SEG[split_id, split]
    pool = cityscapes.ids("train")
    if split_id == 0:
        assert [pool.index(each) for each in made.labeled[:5]] == [1687, 2342, 392, 1338, 76]


def test_orders_do_not_depend_on_the_order_of_the_pool():
    pool = [f"{number:03d}" for number in range(50)]
    for rule in ("python_shuffle", "numpy_permutation"):
        labeled, rest = first_of_order(pool, rule, 1, 20)
        assert (labeled, rest) == first_of_order(pool[::-1], rule, 1, 20)
        assert sorted((*labeled, *rest)) == pool
        assert labeled[:7] == first_of_order(pool, rule, 1, 7)[0]
    with pytest.raises(UserError, match="there are only 50 training images"):
        first_of_order(pool, "python_shuffle", 0, 51)


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """A clone with COCO lists of the published form, and a manifest that knows them."""
    root = tmp_path / "UniMatch-V2" / "splits" / "coco" / "1_512"
    root.mkdir(parents=True)
    named = [f"{number:012d}" for number in range(30)]
    for name, part in (("labeled", named[:4]), ("unlabeled", named[4:])):
        lines = [f"train2017/{each}.jpg masks/{each}.png" for each in part]
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    data = (root / "unlabeled.txt").read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    row = replace(
        KNOWN.find("coco", "unimatch", "1/512", "0"),
        labeled=IdList(4, ids_sha256(named[:4])), unlabeled=IdList(26, None), blob=blob,
    )  # fmt: skip
    known = replace(KNOWN, partitions=(row,))
    for module in (importing, splitting):
        monkeypatch.setattr(module, "manifest", lambda: known)
    return tmp_path


def test_lists_of_coco_are_known_by_the_hash_of_their_file(coco):
    text = import_family("unimatch", coco / "UniMatch-V2", coco / "to", "coco")
    assert "1 partitions written" in text
    dataset = Ids([f"{number:012d}" for number in range(30)], name="coco")
    made = make_split(dataset, "1/512", "unimatch", lists_root=coco / "to")
    assert len(made.labeled) == 4
    assert len(made.unlabeled) == 26


def test_another_file_with_as_many_images_is_refused(coco):
    path = coco / "UniMatch-V2/splits/coco/1_512/unlabeled.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    with pytest.raises(UserError, match=r"is not the published file: git's id of it is"):
        import_family("unimatch", coco / "UniMatch-V2", coco / "to", "coco")


def test_the_lists_are_shown(capsys):
    assert main(["splits", "list", "--dataset", "ade20k"]) == 0
    shown = capsys.readouterr().out
    assert "dataset=ade20k split_family=unimatch" in shown
    assert "1/64          0      316     19,894  rule" in shown


def test_voc_of_cutmix_seg_is_known_by_the_hash_of_its_order():
    rows = KNOWN.of("voc", "cutmix_seg")
    assert [each.labeled.count for each in rows] == [106, 212, 529, 1323, 2646]
    assert {each.order for each in rows} == {
        "5265c2c281cd3fc56d7c0fa3ab58031234f8e5e74d3da234316c1055550b9c8e"
    }
    assert [each.clean for each in rows] == [13, 28, 86, 207, 392]
    assert not any(each.rule for each in rows)


class Harmful:
    """A pickle that would make a file if it were run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("kind", ["list", "int64", "int32"])
def test_a_pickled_order_is_read_without_running_it(tmp_path, kind, protocol):
    order = np.random.RandomState(3).permutation(700)
    values = order.tolist() if kind == "list" else order.astype(kind)
    (tmp_path / "order.pkl").write_bytes(pickle.dumps(values, protocol=protocol))
    assert read_order(tmp_path / "order.pkl", 700) == order.tolist()
    with pytest.raises(UserError, match="does not hold the numbers 0 to 700, each once"):
        read_order(tmp_path / "order.pkl", 701)
    (tmp_path / "harm.pkl").write_bytes(pickle.dumps([Harmful(tmp_path / "made"), values], protocol=protocol))
    read_order(tmp_path / "harm.pkl", 700)
    assert not (tmp_path / "made").exists()


def test_what_is_no_order_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        read_order(tmp_path / "none.pkl", 3)
    (tmp_path / "text.pkl").write_bytes(b"hello")
    with pytest.raises(UserError, match="is no pickle"):
        read_order(tmp_path / "text.pkl", 3)
    (tmp_path / "twice.pkl").write_bytes(pickle.dumps([0, 1, 1]))
    with pytest.raises(UserError, match="does not hold the numbers 0 to 2"):
        read_order(tmp_path / "twice.pkl", 3)


def test_an_imported_order_divides_the_sorted_ids(tmp_path, monkeypatch):
    pool = [f"i{number:02d}" for number in range(20)]
    places = np.random.RandomState(5).permutation(20)
    order = [pool[place] for place in places]
    row = replace(
        KNOWN.find("voc", "cutmix_seg", "1/100", "0"),
        labeled=IdList(6, ids_sha256(order[:6])), unlabeled=IdList(14, None), order=ids_sha256(order),
    )  # fmt: skip
    known = replace(KNOWN, partitions=(row,))
    for module in (importing, splitting):
        monkeypatch.setattr(module, "manifest", lambda: known)
    file = tmp_path / "clone/data/splits/pascal_aug/split_0.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(places))
    text = import_family("cutmix_seg", tmp_path / "clone", tmp_path / "to", "voc")
    assert "1 partitions written" in text
    assert "no hash is known" not in text
    made = make_split(Ids(pool[::-1], name="voc"), "1/100", "cutmix_seg", lists_root=tmp_path / "to")
    assert list(made.labeled) == order[:6]
    assert list(made.unlabeled) == order[6:]
    with pytest.raises(UserError, match=r"of the 19 of this dataset it does not give the published lists"):
        make_split(Ids(pool[1:], name="voc"), "1/100", "cutmix_seg", lists_root=tmp_path / "to")
