import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from semiseg.errors import UserError
from semiseg.models.resnet import ResNet
from semiseg.models.weights import load_state, published_file, read_state


@pytest.fixture(scope="module")
def resnet18() -> ResNet:
    torch.manual_seed(3)
    return ResNet(18)


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def with_classifier(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        with_classifier,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: (
            {f"backbone.{key}": value for key, value in state.items()} | {"classifier.bias": torch.ones(3)}
        ),
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    ],
    ids=["bare", "classifier", "state_dict", "data-parallel", "segmentation", "without counters"],
)
def test_files_that_fit(
    tmp_path: Path, resnet18: ResNet, wrap: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    torch.save(wrap(resnet18.state_dict()), tmp_path / "file.pth")
    assert same(ResNet(18, weights=str(tmp_path / "file.pth")), resnet18)


def test_safetensors(tmp_path: Path, resnet18: ResNet) -> None:
    pytest.importorskip("safetensors.torch").save_file(resnet18.state_dict(), tmp_path / "file.safetensors")
    assert same(ResNet(18, weights=str(tmp_path / "file.safetensors")), resnet18)


def test_another_depth_is_refused_and_recognized(tmp_path: Path, resnet18: ResNet) -> None:
    torch.save(with_classifier(resnet18.state_dict()), tmp_path / "file.pth")
    with pytest.raises(UserError) as caught:
        ResNet(34, weights=str(tmp_path / "file.pth"))
    message = str(caught.value)
    assert "looks like ResNet-18, plain stem" in message
    assert "does not fit ResNet-34 with a plain stem" in message
    assert "80 entries of the network are not in the file" in message
    assert len(message) < 1500


def test_shapes_and_leftovers_are_named(tmp_path: Path, resnet18: ResNet) -> None:
    state = resnet18.state_dict() | {"conv1.weight": torch.zeros(64, 1, 7, 7), "extra": torch.zeros(1)}
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(
        UserError, match=r"1 entries of the file .* extra(?s:.*)64x1x7x7 in the file, 64x3x7x7"
    ):
        ResNet(18, weights=str(tmp_path / "file.pth"))


def test_nothing_is_loaded_where_something_does_not_fit() -> None:
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    with pytest.raises(UserError, match=r"bias"):
        load_state(module, {"weight": torch.zeros(2, 2)}, "file", "a layer")
    assert torch.equal(module.weight, before)


def test_weights_are_only_compared_on_the_meta_device(tmp_path: Path, resnet18: ResNet) -> None:
    torch.save(resnet18.state_dict(), tmp_path / "file.pth")
    with torch.device("meta"):
        assert ResNet(18, weights=str(tmp_path / "file.pth")).conv1.weight.is_meta
        with pytest.raises(UserError, match="does not fit"):
            ResNet(50, weights=str(tmp_path / "file.pth"))


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "file.pth").write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    torch.save({"state_dict": Malicious(marker)}, tmp_path / "other.pth")
    for name in ("file.pth", "other.pth"):
        with pytest.raises(UserError, match="refused"):
            read_state(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"not weights"])
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_state(tmp_path / name)


def test_truncated_file(tmp_path: Path, resnet18: ResNet) -> None:
    torch.save(resnet18.state_dict(), tmp_path / "file.pth")
    content = (tmp_path / "file.pth").read_bytes()
    (tmp_path / "file.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        read_state(tmp_path / "file.pth")


@pytest.mark.parametrize(
    ("content", "named"),
    [([1, 2], "list"), ({}, "dict"), ({"epoch": 1, "lr": 0.1}, "epoch, lr"), (torch.ones(2), "Tensor")],
)
def test_files_without_a_state_dict(tmp_path: Path, content: object, named: str) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UserError, match=named):
        read_state(tmp_path / "file.pth")


def test_missing_file_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"imagenett\. backbone\.weights takes none, a published file \(imagenet"
    ):
        ResNet(18, weights=str(tmp_path / "imagenett"))


class TestPublishedFile:
    @pytest.fixture(autouse=True)
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def test_offline_says_which_file_to_put_where(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def offline(*_: object, **__: object) -> None:
            raise URLError("no network")

        monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
        with pytest.raises(UserError) as caught:
            ResNet(50, weights="imagenet")
        assert f"Copy the file to {tmp_path / 'checkpoints' / 'resnet50-0676ba61.pth'}" in str(caught.value)
        assert "backbone.weights=PATH" in str(caught.value)

    @pytest.mark.parametrize(
        ("depth", "digest"), [(18, "f37072fd"), (34, "b627a593"), (50, "0676ba61"), (101, "63fe2227")]
    )
    def test_a_damaged_copy_is_refused(self, tmp_path: Path, depth: int, digest: str) -> None:
        path = tmp_path / "checkpoints" / f"resnet{depth}-{digest}.pth"
        path.parent.mkdir()
        path.write_bytes(b"damaged")
        with torch.device("meta"), pytest.raises(UserError, match=f"damaged.*not {digest}"):
            ResNet(depth, weights="imagenet")

    def test_a_sound_copy_is_used_without_network(self, tmp_path: Path) -> None:
        digest = hashlib.sha256(b"weights").hexdigest()[:8]
        path = tmp_path / "checkpoints" / f"net-{digest}.pth"
        path.parent.mkdir()
        path.write_bytes(b"weights")
        assert published_file(f"memory://host/net-{digest}.pth") == path

    def test_a_missing_file_is_fetched_with_its_digest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digest = hashlib.sha256(b"weights").hexdigest()[:8]

        def fetch(url: str, target: str, hash_prefix: str, progress: bool) -> None:
            assert (url, hash_prefix, progress) == (f"memory://host/net-{digest}.pth", digest, False)
            Path(target).write_bytes(b"weights")

        monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
        assert published_file(f"memory://host/net-{digest}.pth").read_bytes() == b"weights"
