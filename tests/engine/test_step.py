import contextlib

import pytest
import torch
from torch import nn

from semiseg.contracts.training import Batch, Learner, LossTerm, Progress, StepOutput
from semiseg.engine.step import Meter, forward_backward, micro_batches, to_device
from semiseg.errors import RunFailed

PROGRESS = Progress(iteration=7, total=10, epoch=0, seed=1)


class TwoTerms(Learner):
    """Two terms whose counts differ from image to image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        part = batch["labeled"]
        logits = self.conv(part["image"].to(self.conv.weight.dtype) / 255)
        valid = part["label"] != 255
        first = LossTerm((logits[:, 0] * valid).sum(), valid.sum())
        second = LossTerm((logits[:, 1] ** 2).sum(), torch.tensor(logits[:, 1].numel()), weight=0.5)
        return StepOutput({"first": first, "second": second}, {"share": valid.float().mean()})


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (4, 3, 5, 5), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 2, (4, 5, 5), generator=generator) * 255
    label[0] = 255
    return {"labeled": {"image": image, "label": label, "id": ["a", "b", "c", "d"]}}


def test_accumulated_gradients_equal_those_of_the_whole_batch() -> None:
    whole, pieces = TwoTerms(), TwoTerms()
    expected = forward_backward(whole, batch(), PROGRESS, 1, contextlib.nullcontext)
    found = forward_backward(pieces, batch(), PROGRESS, 4, contextlib.nullcontext)
    torch.testing.assert_close(found.total, expected.total.detach())
    torch.testing.assert_close(found.scalars["share"], expected.scalars["share"])
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_accumulation_is_as_exact_as_double_precision() -> None:
    whole, pieces = TwoTerms().double(), TwoTerms().double()
    forward_backward(whole, batch(), PROGRESS, 1, contextlib.nullcontext)
    forward_backward(pieces, batch(), PROGRESS, 3, contextlib.nullcontext)
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-13, atol=0)


def test_learners_get_labels_of_any_integers_as_int64() -> None:
    expected = batch()["labeled"]["label"]
    for dtype in (torch.uint8, torch.int64):
        part = batch()["labeled"]
        part |= {"label": expected.to(dtype), "valid": expected == 0, "other": expected.to(torch.uint8)}
        found = to_device({"labeled": part}, torch.device("cpu"), torch.channels_last)["labeled"]
        assert found["label"].dtype == torch.int64
        assert torch.equal(found["label"], expected)
        assert (found["valid"].dtype, found["other"].dtype) == (torch.bool, torch.uint8)


def test_micro_batches_cover_the_batch_once() -> None:
    pieces = micro_batches(batch(), 2)
    assert [piece["labeled"]["id"] for piece in pieces] == [["a", "b"], ["c", "d"]]
    assert torch.equal(
        torch.cat([piece["labeled"]["image"] for piece in pieces]), batch()["labeled"]["image"]
    )


@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_that_is_not_finite_names_iteration_and_images(parts: int) -> None:
    learner = TwoTerms()
    with torch.no_grad():
        learner.conv.bias.fill_(float("nan"))
    with pytest.raises(RunFailed, match=r"iteration 7.*\n.*a, b"):
        forward_backward(learner, batch(), PROGRESS, parts, contextlib.nullcontext)
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_nothing_valid_gives_zero_loss_and_zero_gradient() -> None:
    learner = TwoTerms()
    empty = batch()
    empty["labeled"]["label"].fill_(255)
    output = learner(empty, PROGRESS)
    output.losses["first"].mean.backward()
    assert output.losses["first"].mean.item() == 0
    assert all(not parameter.grad.any() for parameter in learner.parameters())


def test_meter_goes_on_from_its_state() -> None:
    learner = TwoTerms()
    meter, resumed = Meter(), Meter()
    meter.add(learner(batch(), PROGRESS), 4)
    resumed.restore(meter.state())
    for each in (meter, resumed):
        each.add(learner(batch(), PROGRESS), 4)
    assert meter.read()["train/loss"] == resumed.read()["train/loss"]


@pytest.mark.parametrize(("parts", "sizes"), [(3, [1, 1, 2]), (4, [1, 1, 1, 1]), (9, [1, 1, 1, 1])])
def test_a_short_batch_is_cut_as_equally_as_can_be(parts: int, sizes: list[int]) -> None:
    assert [len(piece["labeled"]["id"]) for piece in micro_batches(batch(), parts)] == sizes
    whole, pieces = TwoTerms(), TwoTerms()
    forward_backward(whole, batch(), PROGRESS, 1, contextlib.nullcontext)
    forward_backward(pieces, batch(), PROGRESS, parts, contextlib.nullcontext)
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
