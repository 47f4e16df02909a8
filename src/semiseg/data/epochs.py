"""Streams of a fit, by each paper's rule for an epoch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from semiseg.contracts.feeding import Budget, StoredLabels, View
from semiseg.data.collate import Item
from semiseg.data.streams import Stream, Streams
from semiseg.errors import UserError


class Unlabeled(NamedTuple):
    """One unlabeled stream of ``separate``: its images, their view, and its ``Stream.order``."""

    ids: Sequence[str]
    view: View
    order: str | None = None


def labeled(
    ids: Sequence[str],
    view: View,
    batch_size: int,
    budget: Budget,
    double_below: int = 0,
    *,
    last: Literal["drop", "short"] = "drop",
    smallest: int = 1,
) -> Streams:
    """Labeled images alone, in the stream ``labeled``.

    An epoch is one pass, with "drop" without the last incomplete batch (one batch at least).

    Args:
        ids: labeled images.
        view: view of each image.
        batch_size: number of images of a batch.
        budget: length of the fit.
        double_below: number of images below which all are listed twice. ST++: 200.
        last: rule for the last batch of a pass, see ``Stream``; the baselines of DMT keep it "short".
        smallest: number of images below which a short batch is dropped; with fewer in all, batches are filled by
            repetition.
    """
    items = tuple(Item(image_id, "true", view) for image_id in ids)
    if last == "short" and len(items) >= smallest:
        stream = Stream(items, batch_size, last="short", smallest=smallest)
        return Streams({"labeled": stream}, budget.total(stream.batches), stream.batches)
    return _single("labeled", items * 2 if len(items) < double_below else items, batch_size, budget)


def mixed(
    labeled_ids: Sequence[str],
    pseudo: StoredLabels | Sequence[StoredLabels],
    weak: View,
    strong: View,
    batch_size: int,
    budget: Budget,
) -> Streams:
    """Labeled and pseudo-labeled images in the one stream ``mixed``: the retraining of ST++.

    The labeled list is repeated ceil(pseudo-labeled / labeled) times. An epoch is one pass over both lists
    without the last incomplete batch; the labeled share of a batch is random, one half on average.

    Args:
        labeled_ids: ids of the images with true labels, seen in the weak view.
        pseudo: pseudo-labels of the other images, seen in the strong view; several stores add up.
        weak: view of the labeled images.
        strong: view of the pseudo-labeled images.
        batch_size: number of images of a batch, of both kinds together.
        budget: length of the fit.

    Raises:
        UserError: an image is listed twice or in both lists.
    """
    stores = [pseudo] if isinstance(pseudo, StoredLabels) else list(pseudo)
    guessed = tuple(Item(image_id, store, strong) for store in stores for image_id in store.ids)
    known = tuple(Item(image_id, "true", weak) for image_id in labeled_ids)
    _refuse_repeated([item.id for item in (*known, *guessed)])
    repeats = max(1, -(-len(guessed) // max(1, len(known))))
    return _single("mixed", known * repeats + guessed, batch_size, budget)


def with_labeled(streams: Streams, ids: Sequence[str], view: View, name: str = "labeled_2") -> Streams:
    """Return streams with another one over labeled images, in an order of its own.

    Args:
        streams: streams with one called ``labeled``, whose batch size and length the new one has.
        ids: ids of the labeled images.
        view: view of each image.
        name: name of the new stream.
    """
    known = tuple(Item(image_id, "true", view) for image_id in ids)
    other = replace(streams.streams["labeled"], items=known, order=None)
    return replace(streams, streams={**streams.streams, name: other})


def unlabeled_and_labeled(
    unlabeled: StoredLabels | Sequence[str],
    labeled_ids: Sequence[str],
    view: View,
    *,
    unlabeled_batch_size: int,
    batch_size: int,
    budget: Budget,
) -> Streams:
    """Unlabeled images, with pseudo-labels or without, and labeled ones in a second stream: the phases of DMT.

    An epoch is one pass over the unlabeled images, whose last batch may be short; the labeled list starts again in a
    new order whenever it is used up.

    Args:
        unlabeled: pseudo-labels, for the stream ``pseudo``; or ids, for the stream ``unlabeled``.
        labeled_ids: ids of the images with true labels, for the stream ``labeled``.
        view: view of all images.
        unlabeled_batch_size: number of images of a batch of the first stream.
        batch_size: number of labeled images of a batch.
        budget: length of the fit.

    Raises:
        UserError: an image is in both lists, or one of them is empty.
    """
    store, ids = (unlabeled, unlabeled.ids) if isinstance(unlabeled, StoredLabels) else (None, unlabeled)
    _refuse_repeated([*labeled_ids, *ids])
    first = Stream(tuple(Item(image_id, store, view) for image_id in ids), unlabeled_batch_size, last="short")
    known = tuple(Item(image_id, "true", view) for image_id in labeled_ids)
    streams = {
        "unlabeled" if store is None else "pseudo": first,
        "labeled": Stream(known, batch_size, last="short"),
    }
    return Streams(streams, budget.total(first.batches), first.batches)


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
    replay: bool = False,
) -> Streams:
    """Labeled and unlabeled images in streams of their own: ``labeled`` and the names of ``unlabeled``.

    An epoch is one pass over the longest stream without the last incomplete batch; the other lists are
    repeated, and filled up with random images, to the same length. This is the rule of CPS.

    Args:
        labeled_ids: ids of the images with true labels.
        labeled_view: view of the labeled images.
        unlabeled: ids, view and order tag of each unlabeled stream, by its name. Two streams over the same ids with
            one order tag see the same image at the same place, in two draws of the view. CPS with CutMix as
            published does that; without a tag the streams are independent, as its paper means.
        batch_size: number of labeled images of a batch.
        unlabeled_batch_size: number of images of a batch of each unlabeled stream.
        budget: length of the fit.
        reshuffle_unlabeled: whether each epoch orders the unlabeled images anew; False keeps one order, as CPS does.
        nominal_lengths: whether labeled images are counted as total // ratio and unlabeled as the rest, one off
            from the lists, as CPS does (Cityscapes 1/4: 279 iterations an epoch, by the lists 278).
        iterations_per_epoch: number of iterations of an epoch, with which a shorter list starts again in a new order
            (CAC: 1157); ``None`` follows the rule above.
        replay: whether a shorter list brings the same batches again within an epoch, as the published code of CAC
            does, see ``Stream``; then lists are not filled up to the same length.
    """
    labeled_items = tuple(Item(image_id, "true", labeled_view) for image_id in labeled_ids)
    streams = {"labeled": Stream(labeled_items, batch_size, replay=replay)}
    for name, (ids, view, order) in unlabeled.items():
        items = tuple(Item(image_id, None, view) for image_id in ids)
        streams[name] = Stream(
            items, unlabeled_batch_size, reshuffle=reshuffle_unlabeled, order=order, replay=replay
        )
    if replay and iterations_per_epoch is None:
        iterations_per_epoch = max(1, *(len(each.items) // each.batch_size for each in streams.values()))
    if iterations_per_epoch is not None:
        return Streams(streams, budget.total(iterations_per_epoch), iterations_per_epoch)
    counts = {name: len(stream.items) for name, stream in streams.items()}
    return _leveled(streams, _nominal(counts) if nominal_lengths else counts, budget)


def _nominal(counts: Mapping[str, int]) -> dict[str, int]:
    """Lengths by the published code of CPS: total // ratio, and the rest."""
    others = [count for name, count in counts.items() if name != "labeled"]
    if not others:
        return dict(counts)
    total = counts["labeled"] + max(others)
    known = total // round(total / counts["labeled"])
    return {name: known if name == "labeled" else total - known for name in counts}


def _leveled(streams: Mapping[str, Stream], counts: Mapping[str, int], budget: Budget) -> Streams:
    """Return streams that are all as long as the one that gives most batches."""
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
            f"{len(twice)} images are listed twice or are both labeled and pseudo-labeled: "
            f"{', '.join(twice[:5])}"
        )
