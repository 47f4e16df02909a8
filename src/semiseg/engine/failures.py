"""Advice for runs that end for want of memory or disk, by a broken device, or by a batch that is too small."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from semiseg.data.image_batches import out_of_memory
from semiseg.errors import RunFailed, UserError

DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
ONE_VALUE_TEXT = "Expected more than 1 value per channel"


@contextmanager
def explained(run_dir: Path) -> Iterator[None]:
    """Turn errors that the machine or a too small batch causes into ``RunFailed`` with advice; pass on all others."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        advice = _advice(error, run_dir)
        if advice is None:
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunFailed(f"{first}\n{advice}") from error


def _advice(error: Exception, run_dir: Path) -> str | None:
    text = str(error)
    # A UserError is a ValueError that already says what to do.
    if isinstance(error, UserError):
        return None
    if isinstance(error, OSError) and error.errno in DISK_FAULTS:
        return f"Make room on the disk, then go on from the last saved state: semiseg train run_dir={run_dir}"
    if out_of_memory(error):
        return (
            "Memory ran out. A smaller trainer.crop_size, trainer.batch_size or evaluator.batch_size, a larger "
            "trainer.accumulate (the result is the same up to batch norm) or trainer.precision=bf16 needs less. "
            "These settings can change the result, so give them to a new run_dir."
        )
    if isinstance(error, torch.AcceleratorError):
        return (
            "After this error the device computes nothing more in this process. Go on from the last saved state: "
            f"semiseg train run_dir={run_dir}; if it comes again, CUDA_LAUNCH_BLOCKING=1 before that command lets "
            "the traceback in run.log name the operation that failed."
        )
    if isinstance(error, ValueError) and ONE_VALUE_TEXT in text:
        return (
            "Batch norm cannot train on one image whose map is a single pixel. Give at least 2 images to every "
            "forward pass: a larger trainer.batch_size or trainer.unlabeled_batch_size, or a smaller "
            "trainer.accumulate."
        )
    return None
