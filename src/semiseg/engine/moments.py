"""Steps of a fit at which its network is evaluated, kept as the best one, and kept as a snapshot."""

from collections.abc import Sequence

from semiseg.contracts.feeding import BatchSource


def evaluation_interval(every: int | None, streams: BatchSource, by_epoch: bool) -> int:
    """Iterations between evaluations: as configured, else an epoch, else a tenth of the fit."""
    if every is not None:
        return every
    return streams.iterations_per_epoch if by_epoch else max(streams.iterations // 10, 1)


def is_candidate(completed: int, total: int, every: int, early: bool = False) -> bool:
    """Whether the network of ``completed`` steps may become the best one of a fit.

    Args:
        completed: optimizer steps done.
        total: steps of the fit.
        every: steps between evaluations.
        early: whether candidates are one step before each multiple of ``every`` and one before the last, as DMT
            evaluates.
    """
    if early:
        return completed > 0 and (completed % every == every - 1 or completed == max(total - 1, 1))
    return completed > 0 and (completed % every == 0 or completed == total)


def snapshot_steps(fractions: Sequence[float], streams: BatchSource) -> list[int]:
    """Numbers of completed steps at which snapshots are kept.

    At whole epochs where the fit has at least three (ST++: ``floor(E * fraction)`` of E epochs), else at
    the nearest lower iteration.
    """
    per_epoch = streams.iterations_per_epoch
    epochs, rest = divmod(streams.iterations, per_epoch)
    # 1e-9: a third of 3 epochs must be 1 epoch, whichever way the fraction was rounded.
    if rest == 0 and epochs >= len(fractions):
        return [max(int(epochs * fraction + 1e-9), 1) * per_epoch for fraction in fractions]
    return [max(int(streams.iterations * fraction + 1e-9), 1) for fraction in fractions]
