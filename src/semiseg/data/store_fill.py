"""Filling a store: room on the disk, decoding ahead in threads, and comparing it with the files again."""

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from semiseg.contracts.dataset import Array, SegDataset
from semiseg.data.store_files import (
    CACHE_VARIABLE,
    CHANNELS,
    Facts,
    Kind,
    PartReader,
    PartWriter,
    PixelEntry,
    Stamp,
    confirm,
    forget,
    pixel_facts,
    read_index,
    remove_outdated,
)
from semiseg.errors import UserError

SPARE_BYTES = 256 * 2**20
"""Bytes that filling a store leaves free on its disk."""

Decoded = TypeVar("Decoded")

Wanted = Mapping[Kind, Mapping[str, Stamp]]
"""Stamps of the files that a run reads, by kind and id."""

logger = logging.getLogger(__name__)


def stored_entries(folder: Path, wanted: Wanted) -> dict[Kind, dict[str, PixelEntry]]:
    """Entries of a store for the wanted files as they are now, by kind and id."""
    return {
        kind: {image_id: entry for image_id, entry in entries.items() if entry.is_of(wanted[kind][image_id])}
        for kind, entries in _known(folder, wanted).items()
    }


def _known(folder: Path, wanted: Wanted) -> dict[Kind, dict[str, PixelEntry]]:
    """Entries for files of the same size and time, some of which may have been replaced."""
    found: dict[Kind, dict[str, PixelEntry]] = {}
    for kind, stamps in wanted.items():
        index = read_index(folder, kind)
        found[kind] = {image_id: index[key] for image_id, key in stamps.items() if key in index}
    return found


def _doubtful(folder: Path, wanted: Wanted) -> dict[Kind, dict[str, Stamp]]:
    """Wanted files of the stored size and time whose status has changed since; kinds without any are left out."""
    found: dict[Kind, dict[str, Stamp]] = {}
    for kind, entries in _known(folder, wanted).items():
        stamps = wanted[kind]
        found[kind] = {each: stamps[each] for each, entry in entries.items() if not entry.is_of(stamps[each])}
    return {kind: stamps for kind, stamps in found.items() if stamps}


def missing(folder: Path, wanted: Wanted) -> dict[Kind, dict[str, Stamp]]:
    """Wanted files that a store lacks, by kind and id; kinds without any are left out."""
    there = stored_entries(folder, wanted)
    lacking: dict[Kind, dict[str, Stamp]] = {
        kind: {image_id: key for image_id, key in stamps.items() if image_id not in there[kind]}
        for kind, stamps in wanted.items()
    }
    return {kind: stamps for kind, stamps in lacking.items() if stamps}


def fill(dataset: SegDataset, folder: Path, wanted: Wanted, tick: Callable[[], None]) -> None:
    """Decode and store the missing files; the caller holds the lock.

    Args:
        dataset: dataset that decodes the files; bad ones are left out.
        folder: folder of the store.
        wanted: files that are to be stored.
        tick: function called before each file. It may raise; files decoded before are kept.

    Raises:
        UserError: the disk has not enough room; nothing has been written.
    """
    if doubtful := _doubtful(folder, wanted):
        counted = " and ".join(f"{len(stamps)} {kind}" for kind, stamps in doubtful.items())
        logger.info(
            "The status of %s of dataset %s has changed: comparing them with the store.",
            counted,
            dataset.info.name,
        )
        differing(dataset, folder, doubtful, tick)
    lacking = missing(folder, wanted)
    if not lacking:
        return
    remove_outdated(folder)
    counts = " and ".join(f"{len(stamps)} {kind}" for kind, stamps in lacking.items())
    needed, free = estimated_bytes(dataset, lacking), shutil.disk_usage(folder).free
    room = f"{sized(needed)}, into {folder} ({sized(free)} free there)"
    logger.info("Decoding %s of dataset %s once for all runs: %s.", counts, dataset.info.name, room)
    if needed + SPARE_BYTES > free:
        raise UserError(
            f"the decoded {counts} of dataset {dataset.info.name} take {sized(needed)}, and the disk of "
            f"{folder} has {sized(free)} left. {elsewhere()}"
        )
    for kind, stamps in lacking.items():
        with PartWriter(folder, kind) as writer:
            for image_id, (array, facts) in decoded(_examiner(dataset, kind), stamps, tick):
                writer.add(stamps[image_id], array, facts)


def differing(dataset: SegDataset, folder: Path, wanted: Wanted, tick: Callable[[], None]) -> list[str]:
    """Decode all wanted files that are stored, compare, and forget those that differ; the caller holds the lock.

    The status of the others is noted, so that they need not be compared again.

    Returns:
        Paths of the files that differ from what was stored of them, or cannot be read any more.
    """
    parts = PartReader(folder)
    wrong: list[Stamp] = []
    right: list[Stamp] = []
    for kind, entries in _known(folder, wanted).items():
        sound = {
            image_id
            for image_id, array in decoded(_reader(dataset, kind), entries, tick)
            if (stored := parts.read(kind, entries[image_id])) is not None and np.array_equal(array, stored)
        }
        wrong += [wanted[kind][image_id] for image_id in entries if image_id not in sound]
        right += [wanted[kind][image_id] for image_id in sound]
    forget(folder, set(wrong))
    confirm(folder, right)
    return [key.file for key in wrong]


def decoded(
    read: Callable[[str], Decoded | None], ids: Iterable[str], tick: Callable[[], None]
) -> Iterator[tuple[str, Decoded]]:
    """Decode in threads, a few files ahead; unreadable files are left out, for ``check_files`` to report."""

    def attempt(image_id: str) -> Decoded | None:
        try:
            return read(image_id)
        except Exception:  # a decoder may raise anything
            return None

    threads = min(16, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)
    ahead: deque[tuple[str, Future[Decoded | None]]] = deque()
    try:
        for image_id in ids:
            tick()
            ahead.append((image_id, pool.submit(attempt, image_id)))
            if len(ahead) == 2 * threads:
                yield from _done(*ahead.popleft())
        for each in ahead:
            yield from _done(*each)
    finally:
        pool.shutdown(cancel_futures=True)


def _done(image_id: str, result: Future[Decoded | None]) -> Iterator[tuple[str, Decoded]]:
    found = result.result()
    if found is not None:
        yield image_id, found


def estimated_bytes(dataset: SegDataset, wanted: Wanted) -> int:
    """Estimate the bytes of decoded files by their headers, and by one of them for the dataset's scale."""
    total = 0.0
    for kind, stamps in wanted.items():
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            pixels = dict(zip(stamps, pool.map(_header_pixels, stamps.values()), strict=True))
        first = next(
            decoded(_reader(dataset, kind), [each for each in stamps if pixels[each]], lambda: None), None
        )
        scale = 1.0 if first is None else first[1].shape[0] * first[1].shape[1] / pixels[first[0]]
        total += sum(pixels.values()) * scale * CHANNELS[kind]
    return int(total)


def _header_pixels(key: Stamp) -> int:
    try:
        with Image.open(key.file) as image:
            return image.width * image.height
    except Exception:  # as in ``decoded``
        return 0


def _examiner(dataset: SegDataset, kind: Kind) -> Callable[[str], tuple[Array, Facts] | None]:
    """Return a function that decodes a file and gathers the facts about its pixels."""
    read = _reader(dataset, kind)

    def examine(image_id: str) -> tuple[Array, Facts] | None:
        array = read(image_id)
        return None if array is None else (array, pixel_facts(kind, array))

    return examine


def _reader(dataset: SegDataset, kind: Kind) -> Callable[[str], Array | None]:
    return dataset.image if kind == "images" else dataset.mask


def sized(count: int) -> str:
    """Write a number of bytes as MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def elsewhere() -> str:
    """Advice for going on where a store cannot be written."""
    return (
        f"Choose another place by dataset.cache_dir=PATH or {CACHE_VARIABLE}, make room, or read the files "
        "themselves by dataset.cache=false, which takes longer in every iteration."
    )
