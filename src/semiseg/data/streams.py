"""Streams: which images with which labels in which views make the batches of a fit, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from semiseg.data.collate import collate
from semiseg.data.dataset import SegDataset
from semiseg.data.pseudo import PseudoLabels
from semiseg.data.views import View
from semiseg.errors import UserError
from semiseg.seeding import derive_seed

if TYPE_CHECKING:
    from semiseg.methods.base import Batch


@dataclass(frozen=True)
class Budget:
    """How long a fit trains: iterations or epochs, exactly one of them.

    Raises:
        UserError: none or both are given, or less than 1.
    """

    iterations: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.iterations, self.epochs) if value is not None]
        if len(given) != 1 or given[0] < 1:
            raise UserError(
                f"The length of training is iterations={self.iterations}, epochs={self.epochs}; "
                "expected one of the two, 1 or more."
            )

    def total(self, iterations_per_epoch: int) -> int:
        """Iterations of the fit."""
        return self.iterations if self.iterations is not None else (self.epochs or 0) * iterations_per_epoch


@dataclass(frozen=True)
class Item:
    """One entry of a stream.

    Args:
        id: image id.
        labels: "true" for the dataset's mask, a store of pseudo-labels, or None: no mask is opened.
        view: what is made of the image.
    """

    id: str
    labels: Literal["true"] | PseudoLabels | None
    view: View


@dataclass(frozen=True)
class Stream:
    """An endless sequence of entries, cut into batches.

    An epoch holds ``length`` entries: the items repeated as often as they fit, plus a random remainder without
    repetition that is drawn anew each epoch. They come in random order.

    Args:
        items: at least one; all with labels or all without.
        batch_size: entries a batch.
        length: entries an epoch; None: the number of items.
        reshuffle: False keeps one order for all epochs (only the remainder changes).
        order: streams with the same tag, length and number of items draw the same positions; None: the
            stream's own name, so that its order is independent of the others.

    Raises:
        UserError: there are no items, or ``batch_size`` is less than 1.
    """

    items: tuple[Item, ...]
    batch_size: int
    length: int | None = None
    reshuffle: bool = True
    order: str | None = None

    def __post_init__(self) -> None:
        if not self.items:
            raise UserError(
                "A stream of batches has no images. Choose a split (or an unlabeled set) with images."
            )
        if self.batch_size < 1 or self.entries < 1:
            raise UserError(f"batch size {self.batch_size}, length {self.length}; expected 1 or more.")
        if len({item.labels is None for item in self.items}) > 1:
            raise ValueError("a stream mixes items with and without labels")

    @property
    def entries(self) -> int:
        """Entries of an epoch."""
        return len(self.items) if self.length is None else self.length


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
    """All that feeds a fit.

    Args:
        streams: by name; each gives one part of every batch.
        iterations: of the whole fit.
        iterations_per_epoch: an epoch's share. A stream whose epoch has fewer entries than this needs goes on
            with a further random pass over its items; what is left over at the end of an epoch is dropped.
    """

    streams: Mapping[str, Stream]
    iterations: int
    iterations_per_epoch: int

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.iterations_per_epoch < 1:
            raise UserError(
                f"{self.iterations} iterations, {self.iterations_per_epoch} an epoch; expected 1 or more."
            )

    def items(self, name: str, seed: int, step_name: str, iteration: int) -> list[Item]:
        """Entries of one stream's part of a batch, in the order of its slots."""
        stream = self.streams[name]
        epoch, within = divmod(iteration, self.iterations_per_epoch)
        order = (seed, step_name, stream.order or name, "order")
        chosen = []
        for slot in range(stream.batch_size):
            number, place = divmod(within * stream.batch_size + slot, stream.entries)
            positions = _positions(
                derive_seed(*order, "remainder", epoch, number),
                derive_seed(*order, epoch if stream.reshuffle else 0, number),
                len(stream.items),
                stream.entries,
            )
            chosen.append(stream.items[positions[place]])
        return chosen

    def batch(self, dataset: SegDataset, seed: int, step_name: str, iteration: int) -> Batch:
        """Return the batch of a 0-based iteration; a function of the arguments and nothing else.

        Images are ``(N, 3, H, W) uint8``, ``label`` is ``(N, H, W) int64``, ``id`` a list of N ids.

        Raises:
            UserError: a labeled image has no mask, or one of another size.
        """
        return {
            name: collate(
                dataset, self.items(name, seed, step_name, iteration), (seed, step_name, iteration, name)
            )
            for name in self.streams
        }
