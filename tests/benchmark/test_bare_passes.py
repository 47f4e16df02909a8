"""The passes of a step are found and repeated without the rest of it."""

from typing import Any

import torch
from torch import Tensor, nn

from semiseg.benchmark.bare_passes import describe_passes, record_passes, run_passes
from semiseg.models.segmodel import Backbone, InputConvention, SegModel, Stage


class Patches(Backbone):
    stages = (Stage(4, 4),) * 4
    convention = InputConvention()

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, 4)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x)] * 4


class Decoder(nn.Module):
    out_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.norm(maps[-1])


class Head(nn.Module):
    in_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def config(self) -> dict[str, Any]:
        return {}


class Two(nn.Module):
    """A student with a head, and a teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = (SegModel(Patches(), Decoder(), nn.Conv2d(4, 3, 1), 3) for _ in range(2))
        self.student.attach("side", Head())
        self.teacher.eval()

    def step(self, images: Tensor) -> None:
        with torch.no_grad():
            self.teacher(images)
        features = self.student.features(images)
        logits = self.student.classify(features, (8, 8))
        pooled = nn.functional.avg_pool2d(features, 2)
        (logits.mean() + self.student.heads["side"](pooled).mean()).backward()


def test_the_passes_of_a_step_are_found_and_repeated() -> None:
    torch.manual_seed(0)
    learner, images = Two(), torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    passes = record_passes(learner, lambda: learner.step(images))  # type: ignore[arg-type]
    found = [
        (each.kind, each.network is learner.student, each.grad, each.source, each.ends) for each in passes
    ]
    assert found == [
        ("encode", False, False, None, True),
        ("decode", False, False, 0, True),
        ("classify", False, False, 1, True),
        ("encode", True, True, None, False),
        ("decode", True, True, 3, False),
        ("classify", True, True, 4, True),
        ("side", True, True, None, True),
    ]
    assert [each.training for each in passes] == [False] * 3 + [True] * 4
    assert describe_passes(passes) == "1 with gradient, 1 without"
    assert "encode" not in vars(learner.student)
    before = learner.student.decoder.norm.num_batches_tracked.clone()  # type: ignore[union-attr,operator]
    sizes: list[tuple[int, ...]] = []
    learner.student.classifier.register_full_backward_hook(lambda m, i, o: sizes.append(tuple(o[0].shape)))
    run_passes(
        passes,
        [learner.student, learner.teacher],
        lambda: torch.autocast("cpu", torch.bfloat16, enabled=False),
    )
    assert sizes == [(2, 3, 4, 4)]
    assert learner.student.decoder.norm.num_batches_tracked == before + 1  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in learner.parameters())
