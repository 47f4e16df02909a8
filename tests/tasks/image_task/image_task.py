"""Another task, as an outside user might write it: one class for a whole image, measured by accuracy."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from semiseg.contracts.dataset import Array, Confidence, DatasetInfo, SegDataset
from semiseg.contracts.feeding import StoredLabels, ViewData
from semiseg.contracts.recipe import Lab
from semiseg.contracts.score_names import MetricName, ScoreNames
from semiseg.contracts.tracking import Sample
from semiseg.contracts.training import Batch, Learner, LossTerm, Network, Progress, StepOutput
from semiseg.data.epochs import labeled, mixed
from semiseg.data.shapes import Shapes
from semiseg.settings import EvaluatorSettings

Stop = Callable[[], None] | None


class Images(Shapes):
    """Drawn images, each with the class that most of its pixels outside of the background have."""

    def __init__(self, train: int = 16, val: int = 4, test: int = 3, name: str = "images") -> None:
        super().__init__(train=train, val=val, test=test, size=32, name=name)
        self.info = DatasetInfo(name, self.info.classes, self.info.palette, label_of="image")

    def mask(self, image_id: str) -> Array:
        """A map of one pixel."""
        counts = np.bincount(super().mask(image_id).ravel(), minlength=self.info.num_classes)
        return np.array([[counts[1:].argmax() + 1]], np.uint8)


def whole(image: Array, label: Array | None, key: Any, confidence: Confidence | None = None) -> ViewData:
    """The image as it is."""
    named = {"image": image, "label": label, "confidence": confidence}
    return {name: values for name, values in named.items() if values is not None}


def logits(network: Network, images: Tensor) -> Tensor:
    """Logits ``(N, K, 1, 1)``."""
    return network(images).mean((2, 3), keepdim=True)


def named(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """Label an image: the policy of the recipe."""
    best = logits(network, images).softmax(1)[0].max(0)
    return best.indices.to(torch.uint8), best.values


class ImageLearner(Learner):
    """One network on one stream."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Average the cross entropy over the images."""
        (part,) = batch.values()
        loss = F.cross_entropy(logits(self.model, part["image"]), part["label"], reduction="sum")
        return StepOutput({"images": LossTerm(loss, torch.tensor(part["label"].numel()))})

    def predictors(self) -> dict[str, Network]:
        """The network."""
        return {"model": self.model}


class TeacherStudent:
    """A teacher on labeled images labels the others for a student."""

    needs_unlabeled = True

    def run(self, lab: Lab) -> Network:
        """Train both, and return the student."""
        size, budget, known = lab.trainer.batch_size, lab.budget, lab.split.labeled
        streams = labeled(known, whole, size, budget)
        teacher = lab.fit("teacher", ImageLearner(lab.network("teacher")), streams)
        pseudo = lab.label("label", teacher.selected, lab.split.unlabeled, named)
        streams = mixed(known, pseudo, whole, whole, size, budget)
        return lab.fit("student", ImageLearner(lab.network("student")), streams).selected


@dataclass(frozen=True)
class Counted:
    """Shares of right answers, of all images and of those of each class."""

    accuracy: float
    recall: list[float | None]

    @property
    def primary(self) -> float:
        """The accuracy."""
        return self.accuracy

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def counted(pairs: Sequence[tuple[int, int]], info: DatasetInfo) -> Counted:
    """Count pairs of true and predicted class."""
    right = [truth == found for truth, found in pairs]
    by_class = [
        [hit for hit, (truth, _) in zip(right, pairs, strict=True) if truth == label]
        for label in range(info.num_classes)
    ]
    return Counted(sum(right) / len(right), [sum(hits) / len(hits) if hits else None for hits in by_class])


class ImageClasses:
    """The task."""

    names = ScoreNames(MetricName("accuracy", "accuracy"), MetricName("recall", "recall"))

    def evaluate(
        self,
        network: Network,
        dataset: SegDataset,
        ids: Sequence[str],
        settings: EvaluatorSettings,
        device: torch.device,
        *,
        precision: str = "fp32",
        stop: Stop = None,
    ) -> Counted:
        """Predict image by image."""
        samples = self.samples(network, dataset, ids, settings, device, precision)
        pairs = [
            (int(each.truth[0, 0]), int(each.prediction[0, 0])) for each in samples if each.truth is not None
        ]
        return counted(pairs, dataset.info)

    def label_quality(
        self,
        source: Network | StoredLabels,
        dataset: SegDataset,
        ids: Sequence[str],
        settings: EvaluatorSettings,
        device: torch.device,
        *,
        precision: str = "fp32",
        stop: Stop = None,
    ) -> Counted | None:
        """Compare with hidden masks."""
        if isinstance(source, Network):
            return self.evaluate(source, dataset, ids, settings, device) if ids else None
        pairs = []
        for image_id in ids:
            mask = dataset.mask(image_id)
            if mask is not None:
                pairs.append((int(mask[0, 0]), int(source.label(image_id)[0, 0])))
        return counted(pairs, dataset.info) if pairs else None

    def samples(
        self,
        network: Network,
        dataset: SegDataset,
        ids: Sequence[str],
        settings: EvaluatorSettings,
        device: torch.device,
        precision: str = "fp32",
    ) -> list[Sample]:
        """Predict a few images."""
        network.eval()
        found = []
        with torch.inference_mode():
            for image_id in ids:
                image = dataset.image(image_id)
                label, confidence = named(network, torch.from_numpy(image).permute(2, 0, 1)[None].to(device))
                answer = label.cpu().numpy(), confidence.cpu().numpy()
                found.append(Sample(image_id, image, dataset.mask(image_id), *answer))
        return found

    def write_samples(self, folder: Path, samples: Sequence[Sample], info: DatasetInfo) -> list[Path]:
        """Write each image into a file that is called like its class."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [
            folder / f"{number:02d}-{info.classes[int(each.prediction[0, 0])]}.png"
            for number, each in enumerate(samples)
        ]
        for path, each in zip(paths, samples, strict=True):
            Image.fromarray(each.image).save(path)
        return paths
