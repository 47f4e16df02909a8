"""Streams: the images, labels and views that make the batches of a fit, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import SegDataset
from semiseg.contracts.training import Batch
from semiseg.data.collate import Item, collate
from semiseg.errors import UserError
from semiseg.seeding import derive_seed


@dataclass(frozen=True)
class Stream:
    """An endless sequence of entries, cut into batches.

    An epoch holds ``length`` entries: the items repeated as often as they fit, plus a random remainder without
    repetition that is drawn anew each epoch. They come in random order.

    Args:
        items: entries of the stream, at least one; all with labels or all without.
        batch_size: number of entries of a batch.
        length: number of entries of an epoch; ``None`` takes the number of items.
        reshuffle: whether each epoch has an order of its own; False keeps one (only the remainder changes).
        order: tag of the order: streams with the same tag, length and number of items draw the same positions; ``None``
            takes the stream's own name, so that its order is independent of the others.
        last: rule for the last batch: "drop" fills every batch, and drops the rest at the end of the fit's epoch; with
            "short" the stream has epochs of its own, whose last batch holds the rest (``DataLoader`` without
            ``drop_last``, begun anew when exhausted).
        smallest: number of entries below which a "short" last batch is dropped.
        replay: whether the same batches, crops and colors included, come again in the same order once an epoch of
            the fit has used up the stream's whole batches, as with ``itertools.cycle`` over a loader (CAC); False
            goes on with new draws.

    Raises:
        UserError: there are no items, or ``batch_size`` is less than 1.
        ValueError: ``replay`` together with "short".
    """

    items: tuple[Item, ...]
    batch_size: int
    length: int | None = None
    reshuffle: bool = True
    order: str | None = None
    last: Literal["drop", "short"] = "drop"
    smallest: int = 1
    replay: bool = False

    def __post_init__(self) -> None:
        if not self.items:
            raise UserError(
                "A stream of batches has no images. Choose a split (or an unlabeled set) with images."
            )
        if self.batch_size < 1 or self.entries < 1:
            raise UserError(f"batch size {self.batch_size}, length {self.length}; expected 1 or more.")
        if self.last == "short" and self.batches < 1:
            raise UserError(f"An epoch of {self.entries} images has no batch of {self.smallest} or more.")
        if len({item.labels is None for item in self.items}) > 1:
            raise ValueError("a stream mixes items with and without labels")
        if self.replay and self.last == "short":
            raise ValueError("a stream with epochs of its own cannot replay the batches of the fit's epoch")

    @property
    def entries(self) -> int:
        """Entries of an epoch."""
        return len(self.items) if self.length is None else self.length

    @property
    def batches(self) -> int:
        """Batches of an epoch of the stream's own, a short one included."""
        whole, rest = divmod(self.entries, self.batch_size)
        return whole + (rest >= max(self.smallest, 1))

    def source(self, iteration: int, iterations_per_epoch: int) -> int:
        """Return the iteration whose batch comes at ``iteration``: itself, or the one that is replayed."""
        if not self.replay:
            return iteration
        within = iteration % iterations_per_epoch
        return iteration - within + within % max(self.entries // self.batch_size, 1)

    def slots(self, iteration: int, iterations_per_epoch: int) -> list[tuple[int, int, int]]:
        """Return (epoch, pass within the epoch, place in the pass) of each entry of a batch."""
        size, entries = self.batch_size, self.entries
        if self.last == "short":
            epoch, within = divmod(iteration, self.batches)
            return [(epoch, 0, place) for place in range(within * size, min((within + 1) * size, entries))]
        epoch, within = divmod(iteration, iterations_per_epoch)
        return [(epoch, *divmod(within * size + slot, entries)) for slot in range(size)]


@lru_cache(maxsize=64)
def _positions(seed: int, frozen_seed: int, items: int, entries: int) -> NDArray[np.int64]:
    """Item numbers of one pass: whole repeats plus a remainder drawn by ``seed``, shuffled by the other."""
    # RandomState: its streams are the same in all versions of numpy.
    repeats, rest = divmod(entries, items)
    remainder = np.random.RandomState(np.random.MT19937(seed)).permutation(items)[:rest]
    listed = np.concatenate([np.tile(np.arange(items), repeats), remainder])
    return listed[np.random.RandomState(np.random.MT19937(frozen_seed)).permutation(entries)]


@dataclass(frozen=True)
class Streams:
    """The streams of a fit and its length.

    Args:
        streams: streams by name; each gives one part of every batch.
        iterations: number of iterations of the whole fit.
        iterations_per_epoch: number of iterations of one epoch. A stream whose epoch has fewer entries than these
            need goes on with a further random pass over its items; for the rest at its end, see ``Stream.last``.
    """

    streams: Mapping[str, Stream]
    iterations: int
    iterations_per_epoch: int

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.iterations_per_epoch < 1:
            raise UserError(
                f"{self.iterations} iterations, {self.iterations_per_epoch} an epoch; expected 1 or more."
            )

    @property
    def parts(self) -> tuple[tuple[str, int, str], ...]:
        """Name, batch size and kind of view of each stream."""
        return tuple(
            (name, stream.batch_size, type(stream.items[0].view).__name__)
            for name, stream in self.streams.items()
        )

    def items(self, name: str, seed: int, step_name: str, iteration: int) -> list[Item]:
        """Entries of one stream's part of a batch, in the order of its slots."""
        stream = self.streams[name]
        order = (seed, step_name, stream.order or name, "order")
        chosen = []
        iteration = stream.source(iteration, self.iterations_per_epoch)
        for epoch, number, place in stream.slots(iteration, self.iterations_per_epoch):
            positions = _positions(
                derive_seed(*order, "remainder", epoch, number),
                derive_seed(*order, epoch if stream.reshuffle else 0, number),
                len(stream.items),
                stream.entries,
            )
            chosen.append(stream.items[positions[place]])
        return chosen

    def batch(self, dataset: SegDataset, seed: int, step_name: str, iteration: int) -> Batch:
        """Return the batch of a 0-based iteration, a function of the arguments alone.

        Shapes and number types are those of ``collate``: images ``(N, C, H, W)``, uint8 or float32, ``label``
        ``(N, H, W)``, uint8 or int64, ``id`` a list of N ids.

        Raises:
            UserError: a labeled image has no mask, or one of another size.
        """
        parts = {}
        for name, stream in self.streams.items():
            source = stream.source(iteration, self.iterations_per_epoch)
            items = self.items(name, seed, step_name, source)
            parts[name] = collate(dataset, items, (seed, step_name, source, name))
        return parts
