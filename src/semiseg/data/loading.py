"""Loading batches ahead of training: the same batches for any number of worker processes."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from semiseg.contracts.dataset import SegDataset
from semiseg.contracts.feeding import BatchSource
from semiseg.contracts.training import Batch
from semiseg.errors import UserError


class LoadingError(UserError, RuntimeError):
    """A worker process ended before it delivered its batch."""


@dataclass(frozen=True)
class _Fault:
    """A failure in a worker: a message for the user, or a traceback."""

    message: str
    is_user_error: bool


class _Batches(Dataset[Any]):
    """Batches by iteration number, for worker processes."""

    def __init__(self, streams: BatchSource, dataset: SegDataset, seed: int, step_name: str) -> None:
        self.streams = streams
        self.dataset = dataset
        self.seed = seed
        self.step_name = step_name

    def __getitem__(self, iteration: int) -> Batch | _Fault:
        # Returned, not raised: what a worker raises reaches the main process as a wrapped traceback.
        try:
            return self.streams.batch(self.dataset, self.seed, self.step_name, iteration)
        except UserError as error:
            return _Fault(str(error), True)
        except Exception:
            return _Fault(traceback.format_exc(), False)


def _prepare_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # See preload.py for signals to the whole group. torch has just made SIGTERM end this process. That is delayed,
    # so a worker that nobody ends still goes away after a while.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # torch looks at the parent of a worker, which is the server; the server ends once no worker is left, and would
    # stay with its workers where the main process was killed.
    if (parent := multiprocessing.parent_process()) is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _context() -> Any:
    # Not fork: a forked child may inherit held locks of the main process's threads (OpenMP, CUDA, tracker).
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["semiseg.data.preload"])
    return context


def _ignored(batch: Any) -> Any:
    return batch


def batches(
    streams: BatchSource,
    dataset: SegDataset,
    seed: int,
    step_name: str,
    start: int = 0,
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of iterations ``start`` to ``streams.iterations``, in order.

    Args:
        streams: source of the batches.
        dataset: images and masks; with workers it is pickled once for each.
        seed: seed of the run.
        step_name: name of the fit.
        start: first iteration.
        num_workers: number of processes that load ahead; 0 loads in this one. The batches do not depend on it.
        pin_memory: whether batches are put into page-locked memory, for copies to CUDA.

    Raises:
        UserError: the dataset or the streams raised it, in a worker or without.
        LoadingError: a worker process ended, for instance because memory ran out.
    """
    if num_workers == 0 and not pin_memory:
        for iteration in range(start, streams.iterations):
            yield streams.batch(dataset, seed, step_name, iteration)
        return
    numbers = range(start, streams.iterations)
    iterator = iter(_loader(_Batches(streams, dataset, seed, step_name), numbers, num_workers, pin_memory))
    for iteration in numbers:
        try:
            batch = next(iterator)
        except (torch.AcceleratorError, torch.OutOfMemoryError):
            # Of the device, whose faults may be told at any later call; batches have no part in them.
            raise
        except (RuntimeError, OSError, EOFError) as error:
            if num_workers == 0:
                raise
            raise LoadingError(
                f"A process that loads batches ended at iteration {iteration} of step {step_name} ({error}). "
                "Often memory ran out (RAM, or /dev/shm in a container: docker run --shm-size=8g). Start again with "
                f"the same run_dir to go on, with a smaller trainer.num_workers than {num_workers} (0 needs no extra "
                "process)."
            ) from error
        if isinstance(batch, _Fault):
            raise UserError(batch.message) if batch.is_user_error else RuntimeError(batch.message)
        yield batch


def _loader(made: _Batches, numbers: range, num_workers: int, pin_memory: bool) -> DataLoader[Any]:
    return DataLoader(
        made,
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        collate_fn=_ignored,
        pin_memory=pin_memory,
        worker_init_fn=_prepare_worker,
        multiprocessing_context=_context() if num_workers else None,
        generator=torch.Generator(),  # its own, so that torch's global random state stays untouched
    )
