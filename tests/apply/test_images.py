import pytest

from semiseg.apply.images import find_images, left_aside
from semiseg.errors import UserError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A working directory with photos in a folder and below it."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.jpg",
        "b.PNG",
        "notes.txt",
        ".hidden.jpg",
        "trip/a.jpg",
        "trip/old/c.tif",
        ".cache/d.jpg",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "photos"


def test_a_folder_keeps_its_subfolders(photos):
    assert find_images([photos]) == {
        "a": photos / "a.jpg",
        "b": photos / "b.PNG",
        "trip/a": photos / "trip/a.jpg",
        "trip/old/c": photos / "trip/old/c.tif",
    }
    assert list(find_images(["photos/trip"])) == ["a", "old/c"]


def test_files_of_any_extension_are_named_from_the_folder_that_they_share(photos):
    assert list(find_images(["photos/a.jpg", "photos/notes.txt"])) == ["a", "notes.txt"]
    assert list(find_images(["photos/a.jpg", "photos/trip/a.jpg"])) == ["a", "trip/a"]
    assert list(find_images([photos / "trip/a.jpg", photos / "trip/old/c.tif"])) == ["a", "old/c"]


def test_several_folders_keep_their_names(photos):
    (photos.parent / "more").mkdir()
    (photos.parent / "more/a.jpg").write_bytes(b"")
    assert list(find_images(["more", "photos/trip"])) == ["more/a", "photos/trip/a", "photos/trip/old/c"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("photos/*.jpg", ["a"]),
        ("photos/**/*.jpg", ["a", "trip/a"]),
        ("photos/*", ["a", "b", "trip/a", "trip/old/c"]),
        ("photos/t*/a.???", ["trip/a"]),
    ],
)
def test_patterns(photos, pattern, names):
    assert list(find_images([pattern])) == names
    assert list(find_images([str(photos.parent / pattern), photos / "a.jpg"])) == list(
        dict.fromkeys([*names, "a"])
    )


def test_a_name_that_looks_like_a_pattern(photos):
    (photos / "x[1].jpg").write_bytes(b"")
    assert list(find_images(["photos/x[1].jpg"])) == ["x[1]"]


def test_a_picture_named_twice_is_taken_once(photos):
    assert len(find_images([photos, "photos/a.jpg", "photos/../photos/*.jpg"])) == 4


def test_equal_stems_keep_their_extensions(photos):
    for name in ("a.png", "A.bmp", "v1.0.jpg", "v1.0.png", "v1.0.png.jpg"):
        (photos / name).write_bytes(b"")
    names = find_images([photos])
    assert {"a.jpg", "a.png", "A.bmp", "b", "v1.0.jpg", "v1.0.png", "v1.0.png.jpg", "trip/a"} < set(names)
    assert len({name.lower() for name in names}) == len(names)
    assert names["v1.0.png"] == photos / "v1.0.png"


def test_results_of_earlier_commands_are_no_input(photos):
    before = find_images([photos, "photos/**/*"])
    for out, kinds, record in (
        (photos, ("labels", "overlay", "confidence"), "predict.json"),
        (photos / "trip", ("images", "masks", "confidence"), "label.json"),
        (photos / "more", ("images", "masks"), ".unfinished/origin.txt"),
    ):
        for name in (*(f"{kind}/deep/z.png" for kind in kinds), "legend.png", record):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(b"")
    assert find_images([photos, "photos/**/*"]) == before
    assert list(find_images(["photos/trip/images"])) == ["deep/z"]
    assert list(find_images(["photos/labels/**/*.png", "photos/labels/deep/z.png"])) == ["deep/z"]
    with pytest.raises(UserError, match="photos/more: all images there were written by `semiseg predict`"):
        find_images(["photos/more"])


def test_an_own_folder_of_such_a_name_is_input(photos):
    (photos / "images").mkdir()
    (photos / "images/e.jpg").write_bytes(b"")
    (photos / "predict.json").write_bytes(b"")
    assert "images/e" in find_images([photos])


def test_linked_folders_are_followed_but_not_in_circles(photos):
    outside = photos.parent / "outside"
    outside.mkdir()
    (outside / "e.jpg").write_bytes(b"")
    (photos / "linked").symlink_to(outside)
    (photos / "trip/back").symlink_to(photos)
    assert list(find_images([photos])) == ["a", "b", "linked/e", "trip/a", "trip/old/c"]


def test_what_names_nothing_is_told_all_at_once(photos):
    (photos.parent / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        find_images(["photos/a.jpg", "photos/a.jpeg", "foto/a.jpg", "empty", "photos/*.gif", ""])
    message = str(caught.value)
    assert "5 of 6 arguments name no image" in message
    assert "photos/a.jpeg: there is no such file or folder. Did you mean a.jpg?" in message
    assert f"foto/a.jpg: there is no folder {photos.parent / 'foto'}" in message
    assert "empty: no images there (.jpg, .jpeg, " in message
    assert "photos/*.gif: no images there" in message


def test_files_that_are_no_pictures_are_counted(photos):
    for name in ("a.heic", "trip/b.HEIC", "notes.txt", ".hidden.raw", "trip/Thumbs.db", "LICENSE"):
        (photos / name).write_bytes(b"x")
    for name in ("out/predict.json", "out/labels/a.png", "marked/label.json", "marked/classes.txt"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"{}")
    assert left_aside([str(photos)]) == "left aside: 2 heic, 1 txt, 1 without ending"
    assert left_aside([str(photos / "a.heic"), str(photos / "*.jpg")]) is None
    (photos / "raw").mkdir()
    (photos / "raw" / "c.cr2").write_bytes(b"x")
    with pytest.raises(UserError, match=r"raw: no images there .*; it holds 1 cr2"):
        find_images([str(photos / "raw")])
