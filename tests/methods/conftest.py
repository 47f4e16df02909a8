"""Tiny networks and batches, and a count of what would make the host wait for a device."""

import copy
import hashlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from semiseg.contracts.dataset import DatasetInfo, Split
from semiseg.contracts.feeding import Budget
from semiseg.contracts.recipe import SelectivePolicy
from semiseg.contracts.training import Progress
from semiseg.data.pseudo import PseudoLabels
from semiseg.engine.step import to_device
from semiseg.models.segmodel import Backbone, InputConvention, SegModel, Stage
from semiseg.settings import EvaluatorSettings

CLASSES = 4


class PixelBackbone(Backbone):
    """Looks at one pixel at a time and keeps the size of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = (Stage(8, 1),) * 4
        self.convention = InputConvention()
        self.conv = nn.Conv2d(3, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.relu(self.norm(self.conv(x)))] * 4


class LastMap(nn.Module):
    """Hands on c4."""

    out_channels = 8

    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[-1]


def build_model(seed: int = 0) -> SegModel:
    torch.manual_seed(seed)
    return SegModel(PixelBackbone(), LastMap(), nn.Conv2d(8, CLASSES, 1), CLASSES)


@pytest.fixture
def make_model() -> Callable[[int], SegModel]:
    return build_model


def build_batch(*names: str, n: int = 4, size: int = 16, seed: int = 0) -> dict[str, Any]:
    """Streams of noise; "labeled" and "mixed" have labels that the color tells, and a corner of 255."""
    generator = torch.Generator().manual_seed(seed)
    batch: dict[str, Any] = {}
    for name in names:
        image = torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
        batch[name] = {"image": image, "id": [f"{name}-{index}" for index in range(n)]}
        if name in ("labeled", "mixed"):
            label = (image[:, 0] // 128 * 2 + image[:, 1] // 128).long()
            label[:, :3, :3] = 255
            batch[name]["label"] = label
    return batch


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Any]]:
    return build_batch


class WaitCounter(TorchDispatchMode):
    """Counts operators whose result the host has to wait for on an accelerator."""

    waiting = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "bincount",
        "is_nonzero",
        "equal",
        "_unique2",
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in self.waiting or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def wait_counter() -> WaitCounter:
    return WaitCounter()


class Pictures:
    """Noise by id; opening the mask of an unlabeled image is a failure."""

    info = DatasetInfo("pictures", ("a", "b", "c", "d"), ((0, 0, 0),) * CLASSES)

    def ids(self, part: str) -> tuple[str, ...]:
        return ()

    def image(self, image_id: str) -> NDArray[np.uint8]:
        seed = int(hashlib.md5(image_id.encode()).hexdigest()[:8], 16)
        return np.random.default_rng(seed).integers(0, 256, (10, 14, 3), dtype=np.uint8)

    def mask(self, image_id: str) -> NDArray[np.uint8]:
        assert not image_id.startswith("u"), f"the mask of unlabeled image {image_id} was opened"
        return self.image(image_id)[..., 0] // 64


class MemoryLabels(PseudoLabels):
    """Pseudo-labels that never touch a disk."""

    def __init__(self, stored: dict[str, tuple[NDArray[np.uint8], NDArray[np.float32] | None]]) -> None:
        super().__init__("memory", tuple(stored))
        self.stored = stored

    def _stored_label(self, image_id: str) -> NDArray[np.uint8]:
        return self.stored[image_id][0]

    def confidence(self, image_id: str) -> NDArray[np.float32] | None:
        return self.stored[image_id][1]


def whole(
    image: NDArray[np.uint8],
    label: NDArray[np.uint8] | None,
    key: Any,
    confidence: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """The weak view of the tests."""
    named = {"image": image, "label": label, "confidence": confidence}
    return {name: values for name, values in named.items() if values is not None}


def inverted(image: NDArray[np.uint8], label: NDArray[np.uint8] | None, key: Any) -> dict[str, Any]:
    """The strong view of the tests."""
    return whole(255 - image, label, key)


class NotebookLab:
    """A lab without engine: notes every step and runs one iteration of each fit."""

    def __init__(self, labeled: int, unlabeled: int) -> None:
        self.dataset = Pictures()
        self.info = Pictures.info
        self.split = Split(
            labeled=tuple(f"l{index}" for index in range(labeled)),
            unlabeled=tuple(f"u{index}" for index in range(unlabeled)),
            val=(),
            name="1/4",
        )
        self.augment = SimpleNamespace(weak=whole, strong=inverted)
        self.trainer = SimpleNamespace(batch_size=2, unlabeled_batch_size=3, precision="fp32", accumulate=1)
        self.seed = 0
        self.evaluator = EvaluatorSettings()
        self.budget = Budget(epochs=3)
        self.steps: list[str] = []
        self.networks: list[str] = []
        self.weights: dict[str, str | None] = {}
        self.differs_from: dict[str, str | None] = {}
        self.scores: dict[str, float] = {}
        self.learners: dict[str, Any] = {}
        self.streams: dict[str, Any] = {}
        self.fits: dict[str, Any] = {}
        self.options: dict[str, dict[str, Any]] = {}
        self.labelings: dict[str, tuple[SegModel, MemoryLabels]] = {}
        self.memos: dict[str, Any] = {}
        self.released: list[MemoryLabels] = []

    def network(
        self,
        tag: str,
        weights: str | None = None,
        *,
        differs_from: str | None = None,
        role: str | None = None,
        probe_rounds: int = 0,
    ) -> SegModel:
        self.networks.append(tag)
        self.differs_from[tag] = differs_from
        self.weights[tag] = weights
        return build_model(len(self.networks))

    def fit(self, name: str, learner: Any, streams: Any, snapshots: Any = (), **options: Any) -> Any:
        self.steps.append(name)
        self.options[name] = options
        self.learners[name], self.streams[name] = learner, streams
        batch = to_device(
            streams.batch(self.dataset, 0, name, 0), torch.device("cpu"), torch.contiguous_format
        )
        output = learner(batch, Progress(0, streams.iterations, 0, 0))
        assert torch.isfinite(output.total)
        primary = next(iter(learner.predictors().values()))
        self.fits[name] = SimpleNamespace(
            selected=copy.deepcopy(primary),
            score=self.scores.get(name),
            snapshots=[build_model(seed) for seed, _ in enumerate(snapshots)],
            asked=snapshots,
        )
        return self.fits[name]

    def predict(self, network: Any, ids: Any, policy: Any) -> Any:
        network.eval()
        for image_id in ids:
            image = torch.from_numpy(self.dataset.image(image_id)).permute(2, 0, 1)[None]
            with torch.inference_mode():
                yield image_id, policy(network, image)

    def label(
        self, name: str, network: Any, ids: Any, policy: Any, keep_confidence: bool = True
    ) -> MemoryLabels:
        self.steps.append(name)
        found = dict(self.predict(network, ids, policy))
        for label, confidence in found.values():
            assert label.dtype == torch.uint8
            assert confidence.dtype == torch.float32
            assert label.shape == confidence.shape == (10, 14)
        stored = {
            key: (label.numpy(), confidence.numpy() if keep_confidence else None)
            for key, (label, confidence) in found.items()
        }
        self.labelings[name] = (network, MemoryLabels(stored))
        if isinstance(policy, SelectivePolicy):
            found = policy.thresholds(CLASSES)
            for label, confidence in stored.values():
                assert confidence is not None
                found.add(label, confidence)
            self.labelings[name][1].thresholds = tuple(found.compute())
        return self.labelings[name][1]

    def memo(self, name: str, compute: Any, planned: Any) -> Any:
        self.steps.append(name)
        self.memos[name] = json.loads(json.dumps(compute()))
        assert self.memos[name].keys() == planned().keys()
        return self.memos[name]

    def release(self, labels: MemoryLabels) -> None:
        self.released.append(labels)


@pytest.fixture
def make_lab() -> Callable[..., NotebookLab]:
    return NotebookLab
