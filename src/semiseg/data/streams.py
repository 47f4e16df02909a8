"""Streams: which images with which labels in which views make the batches of a fit, and what an epoch is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

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


class Unlabeled(NamedTuple):
    """One unlabeled stream of ``separate``: its images, what is made of them, and its ``Stream.order``."""

    ids: Sequence[str]
    view: View
    order: str | None = None


def labeled(
    ids: Sequence[str], view: View, batch_size: int, budget: Budget, double_below: int = 0
) -> Streams:
    """Labeled images alone, in the stream ``labeled``.

    An epoch is one pass without the last incomplete batch (one batch at least).

    Args:
        ids: labeled images.
        view: of each image.
        batch_size: images a batch.
        budget: length of the fit.
        double_below: list all images twice when there are fewer than this. ST++: 200.
    """
    items = tuple(Item(image_id, "true", view) for image_id in ids)
    return _single("labeled", items * 2 if len(items) < double_below else items, batch_size, budget)


def mixed(
    labeled_ids: Sequence[str],
    pseudo: PseudoLabels | Sequence[PseudoLabels],
    weak: View,
    strong: View,
    batch_size: int,
    budget: Budget,
) -> Streams:
    """Labeled and pseudo-labeled images in the one stream ``mixed``: the retraining of ST++.

    The labeled list is repeated ceil(pseudo-labeled / labeled) times. An epoch is one pass over both lists
    without the last incomplete batch; the labeled share of a batch is random, one half on average.

    Args:
        labeled_ids: images with true labels, seen in the weak view.
        pseudo: the pseudo-labels of the other images, seen in the strong view; several stores add up.
        weak: view of the labeled images.
        strong: view of the pseudo-labeled images.
        batch_size: images a batch, of both kinds together.
        budget: length of the fit.

    Raises:
        UserError: an image is listed twice or in both lists.
    """
    stores = [pseudo] if isinstance(pseudo, PseudoLabels) else list(pseudo)
    guessed = tuple(Item(image_id, store, strong) for store in stores for image_id in store.ids)
    known = tuple(Item(image_id, "true", weak) for image_id in labeled_ids)
    _refuse_repeated([item.id for item in (*known, *guessed)])
    repeats = max(1, -(-len(guessed) // max(1, len(known))))
    return _single("mixed", known * repeats + guessed, batch_size, budget)


def separate(
    labeled_ids: Sequence[str],
    labeled_view: View,
    unlabeled: Mapping[str, Unlabeled | tuple[Sequence[str], View, str | None]],
    *,
    batch_size: int,
    unlabeled_batch_size: int,
    budget: Budget,
    reshuffle_unlabeled: bool = True,
    nominal_lengths: bool = False,
    iterations_per_epoch: int | None = None,
) -> Streams:
    """Labeled and unlabeled images in streams of their own: ``labeled`` and the names of ``unlabeled``.

    An epoch is one pass over the longest stream without the last incomplete batch; the other lists are
    repeated, and filled up with random images, to the same length. This is the rule of CPS.

    Args:
        labeled_ids: images with true labels.
        labeled_view: their view.
        unlabeled: name -> (ids, view, order tag). Two streams over the same ids with one order tag see the same
            image at the same place, in two draws of the view. CPS with CutMix as published does that; without
            a tag the streams are independent, as its paper means.
        batch_size: labeled images a batch.
        unlabeled_batch_size: images a batch of each unlabeled stream.
        budget: length of the fit.
        reshuffle_unlabeled: False keeps the order of the unlabeled images over all epochs, as CPS does.
        nominal_lengths: count labeled images as total // ratio and unlabeled as the rest, one off from the
            lists, as CPS does (Cityscapes 1/4: 279 iterations an epoch, by the lists 278).
        iterations_per_epoch: fixed number instead of the rule; a shorter list starts again in a new order.
            CAC: 1157.
    """
    labeled_items = tuple(Item(image_id, "true", labeled_view) for image_id in labeled_ids)
    streams = {"labeled": Stream(labeled_items, batch_size)}
    for name, (ids, view, order) in unlabeled.items():
        items = tuple(Item(image_id, None, view) for image_id in ids)
        streams[name] = Stream(items, unlabeled_batch_size, reshuffle=reshuffle_unlabeled, order=order)
    if iterations_per_epoch is not None:
        return Streams(streams, budget.total(iterations_per_epoch), iterations_per_epoch)

    counts = {name: len(stream.items) for name, stream in streams.items()}
    if nominal_lengths and len(counts) > 1:
        total = counts["labeled"] + max(counts[name] for name in unlabeled)
        known = total // round(total / counts["labeled"])
        counts = {name: known if name == "labeled" else total - known for name in counts}
    longest = max(counts, key=lambda name: counts[name] / streams[name].batch_size)
    most, size = counts[longest], streams[longest].batch_size
    per_epoch = max(1, most // size)
    leveled = {
        name: replace(stream, length=max(1, counts[name], most * stream.batch_size // size))
        for name, stream in streams.items()
    }
    return Streams(leveled, budget.total(per_epoch), per_epoch)


def _single(name: str, items: tuple[Item, ...], batch_size: int, budget: Budget) -> Streams:
    per_epoch = max(1, len(items) // max(1, batch_size))
    return Streams({name: Stream(items, batch_size)}, budget.total(per_epoch), per_epoch)


def _refuse_repeated(ids: Sequence[str]) -> None:
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(
            f"{len(twice)} images are listed twice or are both labeled and pseudo-labeled: {', '.join(twice[:5])}"
        )
