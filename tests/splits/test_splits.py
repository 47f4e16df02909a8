"""Splits: the published rules to the last id, own lists, and what is refused."""

import hashlib
from fractions import Fraction

import pytest
from id_dataset import Ids

from semiseg.contracts.dataset import Split, ids_sha256
from semiseg.errors import UserError
from semiseg.splits.rules import parse_split
from semiseg.splits.split import make_split


def numbered(count):
    return Ids([f"i{index:04d}" for index in range(count)], val=["v0", "v1"], test=["t0"])


def sha16(ids):
    return hashlib.sha256(("\n".join(ids) + "\n").encode()).hexdigest()[:16]


def md5(ids):
    return hashlib.md5("\n".join(ids).encode()).hexdigest()


@pytest.mark.golden("DMT splits")
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("full", "18ea1f34ccb515bc 50aacf424cb0f30e 5188581d1cc3047b"),
        ("1/8", "77d6859dad508f73 4bdefee60d6d910f ab726acabf28c938"),
        ("1/20", "f653a062686eacce feb2d4be8bf36eb0 477eaba1567aad16"),
        ("1/50", "a0b521be2b7982db e4ea266bbe3ab746 c887e701037c7716"),
        ("1/106", "f9789e88e220c92a e07ecc43bcebd11f 189766c3d35c5782"),
    ],
)
def test_shuffled_gives_the_published_voc_lists(voc, split, expected):
    assert sha16(voc.ids("train")) == "d1326bd532648d73"
    made = [make_split(voc, split, "shuffled", split_id).labeled for split_id in range(3)]
    assert " ".join(sha16(ids) for ids in made) == expected


@pytest.mark.golden("DMT splits")
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("full", "40e375170b4284bf 3751c6e9a17c4887 c3ca73a137f0488c"),
        ("1/4", "a9e956d03be65efa 824abc297364a47b 7d6b144e2e4fbfdd"),
        ("1/8", "8edf05d41d49c917 2545e84b8dc6cb99 f1d2674c0d97605a"),
        ("1/30", "9352d7c3d40e99bd deafbbefeb2d7522 e1738357eda60e3a"),
    ],
)
def test_shuffled_gives_the_published_cityscapes_lists(cityscapes, split, expected):
    assert sha16(cityscapes.ids("train")) == "5be898907a337d99"
    made = [make_split(cityscapes, split, "shuffled", split_id).labeled for split_id in range(3)]
    assert " ".join(sha16(ids) for ids in made) == expected


def test_shuffled_has_the_published_counts(voc, cityscapes):
    counts = {
        split: len(make_split(voc, split, "shuffled").labeled) for split in ("1/2", "1/4", "1/8", "1/20")
    }
    assert counts == {"1/2": 5291, "1/4": 2645, "1/8": 1322, "1/20": 530}
    made = make_split(voc, "1/106", "shuffled")
    assert made.counts == {"labeled": 100, "unlabeled": 10482, "val": 1449, "test": 0}
    assert make_split(cityscapes, "1/30", "shuffled", "1").counts["labeled"] == 100
    assert make_split(voc, "1/20", "shuffled", 1).labeled[:3] == ("2009_004946", "2008_007923", "2008_001023")


@pytest.mark.golden("CPS splits")
@pytest.mark.parametrize(
    ("split", "expected", "counts"),
    [
        ("1/2", "fca1a3b42e30d49d6964fa2c5f7316e2", (5291, 5291)),
        ("1/4", "22873233b285a6b3ca3b189a7873affe", (2646, 7936)),
        ("1/8", "ae121d034a7df27d1f03662107b39df8", (1323, 9259)),
        ("1/16", "be6f83c585a0a353b671b7151ea22154", (662, 9920)),
    ],
)
def test_every_gives_the_published_voc_lists(voc, split, expected, counts):
    assert md5(voc.ids("train")) == "3b20577ce87eb9beafd81438ebc61d41"
    made = make_split(voc, split, "every")
    assert md5(made.labeled) == expected
    assert (len(made.labeled), len(made.unlabeled)) == counts
    chosen = set(made.labeled)
    assert made.unlabeled == tuple(i for i in voc.ids("train") if i not in chosen)


@pytest.mark.golden("CPS splits")
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("1/2", "45d12c9e0cdbe0adbbff4fe5072de856"),
        ("1/4", "3322da403d024cdfc3ef863a12476060"),
        ("1/8", "8c080ad05cb2198f67ee0af7cf867754"),
        ("1/16", "f681251f9be850f16015709c987d92bd"),
    ],
)
def test_every_gives_the_published_cityscapes_lists(published, split, expected):
    text = (published / "cps/city/config_new/train.txt").read_text()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    assert md5(make_split(Ids(lines), split, "every").labeled) == expected


def test_published_lists_with_a_shared_id_are_refused_by_name(published, voc, tmp_path):
    source = published / "cps/pascal_voc/subset_train_aug"
    for kind in ("labeled", "unlabeled"):
        (tmp_path / f"{kind}.txt").write_bytes((source / f"pseudoseg_{kind}_1-16.txt").read_bytes())
    with pytest.raises(UserError, match=r"1 ids both in labeled and in unlabeled: 200\d_00\d+"):
        make_split(voc, "92", "list", lists_root=tmp_path)


def test_published_lists_of_image_and_mask_paths_are_read(published, voc):
    made = make_split(voc, "1/8", "list", 2, lists_root=published / "stpp/pascal")
    assert (made.counts["labeled"], made.counts["unlabeled"]) == (1323, 9259)
    assert (made.name, made.split_id) == ("1/8", "2")
    sha1 = hashlib.sha1("\n".join(sorted(made.labeled)).encode()).hexdigest()
    assert sha1[:12] == "84ad6848755b"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1/8", Fraction(1, 8)),
        (" 1/105.82 ", 1 / Fraction("105.82")),
        ("732", 732),
        ("full", "full"),
        ("3/8", Fraction(3, 8)),
    ],
)
def test_split_text(text, value):
    assert parse_split(text) == value


@pytest.mark.parametrize(
    "text", ["", "half", "1/0", "9/8", "0", "-3", "1/-8", "1/", "1.5", "18%", "nan", "1/nan", "1e3"]
)
def test_split_text_that_is_refused(text):
    with pytest.raises(UserError, match="expected a fraction such as 1/8"):
        parse_split(text)


def test_decimal_fraction_names_the_nearest():
    with pytest.raises(UserError, match="nearest fraction is 1/8"):
        parse_split("0.125")


def test_counts_and_other_fractions_are_spread_evenly():
    made = make_split(numbered(10), "4")
    assert made.labeled == ("i0000", "i0002", "i0005", "i0007")
    assert made.unlabeled == ("i0001", "i0003", "i0004", "i0006", "i0008", "i0009")
    assert make_split(numbered(10), "2/5").labeled == made.labeled
    assert made.val == ("v0", "v1")
    assert made.test == ("t0",)


def test_full_labels_everything():
    made = make_split(numbered(10), "full")
    assert made.counts == {"labeled": 10, "unlabeled": 0, "val": 2, "test": 1}
    assert made.fraction == 1.0
    assert len(make_split(numbered(10), "1/1", "shuffled").labeled) == 10


def test_smaller_shuffled_sets_lie_in_larger_ones():
    small, large = (set(make_split(numbered(100), split, "shuffled", 3).labeled) for split in ("1/10", "1/4"))
    assert small < large
    assert small != set(make_split(numbered(100), "1/10", "shuffled", 4).labeled)


def test_shuffled_avoids_a_last_batch_of_one():
    assert len(make_split(numbered(90), "1/10", "shuffled").labeled) == 10
    assert len(make_split(numbered(90), "9", "shuffled").labeled) == 9


def test_hash_fraction_and_counts():
    made = make_split(numbered(16), "1/8")
    expected = hashlib.sha256(b"i0000\ni0008").hexdigest()
    assert made.sha256["labeled"] == expected == ids_sha256(("i0000", "i0008"))
    assert made.sha256["unlabeled"] == ids_sha256(made.unlabeled)
    assert made.fraction == 0.125
    assert (made.name, made.family, made.split_id) == ("1/8", "every", "0")


def test_images_without_masks_join_the_unlabeled():
    dataset = Ids(["a", "b", "c", "d"], unlabeled=["x", "y"])
    assert make_split(dataset, "1/2").unlabeled == ("b", "d", "x", "y")
    assert make_split(dataset, "full").unlabeled == ("x", "y")
    everything = make_split(dataset, "1/2", unlabeled="all")
    assert everything.unlabeled == ("a", "b", "c", "d", "x", "y")
    assert everything.fraction == 2 / 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "11"}, "only 10 training images; the largest split is full"),
        ({"split": "1/11", "family": "shuffled"}, "smallest split is 1/10"),
        ({"split": "1/2", "family": "shufled"}, "nearest: shuffled"),
        ({"split": "1/2", "split_id": 1}, "split_family=shuffled for several"),
        ({"split": "1/2", "family": "shuffled", "split_id": "x"}, "number of a shuffle"),
        ({"split": "1/2", "unlabeled": "none"}, "expected rest"),
        ({"split": "1/2", "family": "list"}, "split_lists=FOLDER"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        make_split(numbered(10), **arguments)


def write(folder, **lists):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


def test_list_with_crlf_blank_lines_and_byte_order_mark(tmp_path):
    folder = write(tmp_path, labeled="\ufeffi0003\r\n\r\n  i0001  \r\n", unlabeled="i0000\r\n\r\n")
    made = make_split(numbered(5), "1/8", "list", lists_root=str(folder))
    assert made.labeled == ("i0003", "i0001")
    assert made.unlabeled == ("i0000",)
    assert (made.name, made.family) == ("2", "list")


def test_list_takes_paths_and_pairs(tmp_path):
    text = (
        "/data/Camvid/train/i0003.png /data/Camvid/trainannot/i0003.png\nimages/i0001.jpg\tmasks/i0001.png\n"
    )
    made = make_split(numbered(5), "full", "list", lists_root=write(tmp_path, labeled=text))
    assert made.labeled == ("i0003", "i0001")


def test_list_without_unlabeled_takes_the_rest_and_its_own_val(tmp_path):
    folder = write(tmp_path, labeled="i0001\n", val="i0002\n")
    made = make_split(numbered(4), "full", "list", lists_root=folder)
    assert made.unlabeled == ("i0000", "i0003")
    assert made.val == ("i0002",)


def test_list_folders_per_split_and_id(tmp_path):
    write(tmp_path / "1of8" / "0", labeled="i0001\n")
    write(tmp_path / "1_4" / "split_3", labeled="i0002\n")
    assert make_split(numbered(4), "1/8", "list", lists_root=tmp_path).labeled == ("i0001",)
    made = make_split(numbered(4), "1/4", "list", 3, lists_root=tmp_path)
    assert (made.labeled, made.name, made.split_id) == (("i0002",), "1/4", "3")
    with pytest.raises(UserError, match=r"1of2/0/labeled\.txt"):
        make_split(numbered(4), "1/2", "list", lists_root=tmp_path)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            {"labeled": "i0001\ni00zz\nnowhere.png\n"},
            r"2 images that the dataset does not have:\n  line 2: i00zz .*nearest",
        ),
        ({"labeled": "i0001\ni0002\ni0001\n"}, "names 1 images twice: i0001"),
        ({"labeled": "i0001\nv0\n"}, "1 ids both in labeled and in val: v0"),
        ({"labeled": "i0001\n", "unlabeled": "v0\nv1\n"}, "2 ids both in unlabeled and in val: v0, v1"),
        (
            {"labeled": "i0001\ni0002\n", "unlabeled": "i0002\n"},
            "1 ids both in labeled and in unlabeled: i0002",
        ),
        ({"labeled": "t0\n"}, "both in labeled and in test: t0"),
        ({"labeled": "\n\n"}, "names no image"),
    ],
)
def test_lists_at_fault_are_refused_with_the_ids(tmp_path, lists, message):
    with pytest.raises(UserError, match=message):
        make_split(numbered(10), "full", "list", lists_root=write(tmp_path, **lists))


def test_list_that_is_no_text(tmp_path):
    (tmp_path / "labeled.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match="cannot read the id list"):
        make_split(numbered(10), "full", "list", lists_root=tmp_path)


def test_leaks_of_the_dataset_itself_are_refused():
    with pytest.raises(UserError, match="1 ids twice in labeled: a"):
        make_split(Ids(["a", "a", "b"]), "full")
    with pytest.raises(UserError, match="both in labeled and in val: a"):
        make_split(Ids(["a", "b"], val=["a"]), "full")


def test_split_is_frozen():
    with pytest.raises(AttributeError):
        Split((), (), ()).name = "x"  # type: ignore[misc]
