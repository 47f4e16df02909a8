"""Exponential moving average of a network, in the conventions of the published methods."""

import copy
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import Split
from semiseg.contracts.training import Learner, Network, Progress
from semiseg.declare import Ge, Lt, record
from semiseg.errors import UserError

First = Literal["copy", "half", "constant"]
Buffers = Literal["average_truncate", "average", "copy", "own"]


@record
class EMASettings:
    """Settings of an EMA teacher, for methods to inherit."""

    ema_decay: Annotated[float, Ge(0), Lt(1)] = 0.996
    """Share that the EMA teacher keeps at each step. Published: UniMatch V2 and AugSeg (Cityscapes) 0.996, AugSeg (VOC)
    and Mean Teacher 0.999, CutMix-Seg and U2PL 0.99."""
    ema_first: First = "copy"
    """Decay of the first updates: "copy" 0, 1/2, 2/3, ... (UniMatch V2, U2PL, AugSeg), "half" 1/2, 2/3, ... (Mean
    Teacher), or "constant" ``ema_decay`` (CutMix-Seg, TorchSemiSeg)."""
    ema_buffers: Buffers = "average"
    """Running statistics of the teacher: "average_truncate" averages all, counters cut to whole numbers (UniMatch V2);
    "average" floating-point ones, and copies counters (the default: a cut counter never grows); "copy" takes the
    student's; "own" leaves those of the teacher's own passes (U2PL, Mean Teacher)."""

    def ema(self, student: nn.Module) -> "EMA":
        """Return the teacher of a network, which begins as its copy."""
        return EMA(student, self.ema_decay, buffers=self.ema_buffers, first=self.ema_first)


def require_validation(report: str, split: Split, otherwise: str) -> None:
    """Require validation images where the "better" of a student and its EMA is asked for.

    Raises:
        UserError: there are none; it names what to choose otherwise.
    """
    if report == "better" and not split.val:
        raise UserError(
            "the dataset has no validation images to find the better network on. Choose "
            f"method.report={otherwise}.",
            key="method.report",
            value=report,
        )


class EMA(nn.Module):
    """A teacher whose parameters follow a student: ``teacher = decay * teacher + (1 - decay) * student``.

    Args:
        student: network to follow; the teacher begins as its copy and is never trained.
        decay: share that the teacher keeps.
        buffers: what becomes of the buffers (running statistics): see ``EMASettings.ema_buffers``.
        first: decay of update u = 0, 1, ... where it is below ``decay``: "copy" 1 - 1 / (u + 1), so that the first
            update copies the student; "half" 1 - 1 / (u + 2); "constant" takes ``decay`` from the start.
    """

    updates: Tensor

    def __init__(
        self, student: nn.Module, decay: float = 0.99, *, buffers: Buffers = "copy", first: First = "half"
    ) -> None:
        super().__init__()
        # Frozen weights never differ: the teacher holds those of the student itself.
        frozen = {id(each): each for each in student.parameters() if not each.requires_grad}
        self.teacher = copy.deepcopy(student, frozen).requires_grad_(False)
        self.decay, self.rule, self.first = decay, buffers, first
        # A buffer, so that checkpoints hold it; its copy on the host spares every step a wait for the device.
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._count: int | None = None

    @torch.no_grad()
    def update(self, student: nn.Module, *, copied: bool = False) -> None:
        """Move the teacher towards the student.

        Args:
            student: network to follow.
            copied: whether this update makes the teacher a copy, whatever its decay; it is counted like any other.
        """
        if self._count is None:
            self._count = int(self.updates)
        weight = 1.0 if copied else 1 - self._decay(self._count)
        self._count += 1
        self.updates += 1
        # One kernel for all parameters: hundreds of small ones would take longer than the sums.
        torch._foreach_lerp_(list(self.teacher.parameters()), list(student.parameters()), weight)
        if self.rule != "own":
            self._follow(list(self.teacher.buffers()), list(student.buffers()), weight)

    def _follow(self, kept: list[Tensor], current: list[Tensor], weight: float) -> None:
        """Move the buffers of the teacher, in few kernels too."""
        pairs = list(zip(kept, current, strict=True))
        averaged = [pair for pair in pairs if self.rule != "copy" and pair[0].is_floating_point()]
        others = [pair for pair in pairs if self.rule == "copy" or not pair[0].is_floating_point()]
        if averaged:
            torch._foreach_lerp_([mine for mine, _ in averaged], [given for _, given in averaged], weight)
        if not others:
            return
        mine, given = [pair[0] for pair in others], [pair[1] for pair in others]
        if self.rule == "average_truncate":
            # Published code of UniMatch V2: unimatch_v2.py copies the mean into the integer, which cuts it off.
            shares = torch._foreach_mul(mine, 1 - weight), torch._foreach_mul(given, weight)
            given = list(torch._foreach_add(*shares))
        torch._foreach_copy_(mine, given)

    def _decay(self, update: int) -> float:
        """Return the decay of a 0-based update."""
        if self.first == "constant":
            return self.decay
        return min(self.decay, 1 - 1 / (update + (1 if self.first == "copy" else 2)))


class AveragedLearner(Learner):
    """A network with its EMA, of which one is reported; methods add their step.

    Args:
        model: network to train.
        average: its EMA; ``None`` for a method that has none.
        report: network that is kept and reported: "student", "better" on the validation images, or else the EMA.
    """

    def __init__(self, model: Network, average: EMA | None, report: str) -> None:
        super().__init__()
        self.model = model
        self.average = average
        self._report = report

    def predictors(self) -> dict[str, Network]:
        """The EMA and the student; the reported one first."""
        if self.average is None:
            return {"model": self.model}
        both = {"average": cast(Network, self.average.teacher), "model": self.model}
        return dict(reversed(both.items())) if self._report == "student" else both

    def candidates(self) -> dict[str, Network]:
        """The reported network, or both."""
        return self.predictors() if self._report == "better" else super().candidates()

    def after_step(self, progress: Progress) -> None:
        """Update the EMA."""
        if self.average is not None:
            self.average.update(self.model)
