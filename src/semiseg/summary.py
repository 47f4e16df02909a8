"""The result of a run: ``summary.json``, the reported checkpoint, the sample pictures."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from semiseg.config.other_networks import config_of
from semiseg.config.stored import Config
from semiseg.contracts.score_names import ScoreNames
from semiseg.contracts.training import Network
from semiseg.engine.checkpoint import load_bundle, save_bundle
from semiseg.engine.lab import RunLab
from semiseg.engine.session import Session
from semiseg.models.bundle import bundle

Stored = Mapping[str, Any] | None
"""Plain scores of a step; ``None`` where nothing was measured."""


def summarize(config: Config, lab: RunLab, network: Network, wall_seconds: float) -> dict[str, Any]:
    """Collect the result of a run, and evaluate the reported network where no fit has done so.

    The validation result is that of the fit the network comes from; test images, where there are any, are
    evaluated by this function alone.

    Args:
        config: config of the run.
        lab: lab of the finished recipe.
        network: network that the method returned.
        wall_seconds: duration of this process's part of the run.
    """
    session, split = lab.session, lab.session.data.split
    network = session.compute.place(network)
    origin = lab.origins.get(network)
    record = lab.fits.get(origin.step) if origin else None
    own = config_of(config, network.role)
    best, last = (record["best"], record["last"]) if record else (None, None)
    reported = _reported(session, network, origin.file if origin else None, best, last)
    test = _evaluated(session, network, split.test)
    return {
        **_scores(session, reported, best, last, test),
        "evaluator": asdict(session.training.evaluator),
        "split": split.name,
        "split_family": split.family,
        "split_id": split.split_id,
        "split_fraction": split.fraction,
        "split_counts": split.counts,
        "split_sha256": split.sha256,
        **_beginnings(lab),
        "seed": session.training.seed,
        **{key: own[key]["name"] for key in ("method", "dataset", "model", "backbone")},
        # Left out for a network of the run's own kind, as by versions without others.
        **({} if network.role is None else {"network": network.role}),
        **_work(lab, wall_seconds),
        "device": str(session.compute.device),
        "threads": session.training.trainer.threads,
        "checkpoint": "checkpoints/best.pt",
        # A network that no fit has made has one file.
        "checkpoint_last": record
        and origin
        and origin.path.with_name("last.pt").relative_to(session.output.run_dir).as_posix(),
    }


def _scores(session: Session, reported: Stored, best: Stored, last: Stored, test: Stored) -> dict[str, Any]:
    """Scores of the reported network and of its fit, by the names that the task gives them."""
    names, classes, split = session.task.names, session.data.info.classes, session.data.split
    select = session.training.trainer.select
    found: dict[str, Any] = {
        names.primary.key: names.value(reported),
        "selected_by": f"{select} on the validation images" if split.val and last else "last",
        names.primary.best: names.value(best),
        names.primary.last: names.value(last),
        "best_iteration": best and best["iteration"],
    }
    told = names.summarized(reported, classes)
    if test is not None:
        found |= {f"{key}_test": value for key, value in names.summarized(test, classes).items()}
    return {**found, **told, **names.as_dict()}


def _beginnings(lab: RunLab) -> dict[str, Any]:
    """Fits and weights taken from other runs, with the digests of their files; empty without any."""
    found: dict[str, Any] = {}
    if lab.networks.initial is not None:
        found["init_from"] = lab.networks.initial.summary()
    if lab.taken:
        keys = ("run", "step", "method", "seed", "sha256", "completed", "training_seconds")
        found["taken"] = {name: {key: fit[key] for key in keys} for name, fit in lab.taken.items()}
    return found


def _work(lab: RunLab, wall_seconds: float) -> dict[str, Any]:
    """Work of the steps and its duration, over all processes of the run."""
    fits = lab.fits.values()
    seconds = sum(fit["training_seconds"] for fit in fits)
    return {
        "iterations": lab.iterations,
        "fits": {name: _brief(fit, lab.session.task.names) for name, fit in lab.fits.items()},
        "train_images_per_s": sum(fit["images"] for fit in fits) / seconds if seconds else None,
        # A resumed process knows its own time alone; the fits know that of all processes.
        "wall_s": max(wall_seconds, sum(fit["seconds"] for fit in fits)),
        "pseudo_labels": lab.labelings,
    }


def keep_reported(lab: RunLab, network: Network, summary: Mapping[str, Any]) -> None:
    """Write the reported network to ``checkpoints/best.pt`` and pictures of it to ``samples/``."""
    session, names = lab.session, lab.session.task.names
    origin = lab.origins.get(network)
    # The stored file, not the network in memory: best.pt then equals the file of its step bit for bit.
    if origin is not None:
        values = load_bundle(origin.path)
    else:
        values = bundle(
            network,
            session.data.info,
            session.output.config_of(network),
            step="run",
            iteration=lab.iterations,
            **{names.primary.key: names.value(summary)},
        )
    reported = session.output.run_dir / str(summary["checkpoint"])
    reported.parent.mkdir(exist_ok=True)  # a run without a fit has not made it
    save_bundle(reported, values)
    samples = session.samples(network)
    session.task.write_samples(session.output.run_dir / "samples", samples, session.data.info)
    session.output.tracker.images("val/samples", samples, lab.iterations)


def _reported(
    session: Session, network: Network, file: str | None, best: Any, last: Any
) -> dict[str, Any] | None:
    known = {"best.pt": best, "last.pt": last}.get(file or "")
    return known if known is not None else _evaluated(session, network, session.data.split.val)


def _evaluated(session: Session, network: Network, ids: tuple[str, ...]) -> dict[str, Any] | None:
    return session.evaluate(network, ids).as_dict() if ids else None


def _brief(fit: Mapping[str, Any], names: ScoreNames) -> dict[str, Any]:
    """A fit without its confusion matrices."""
    best, last = fit["best"], fit["last"]
    return {
        "iterations": fit["completed"],
        names.primary.best: names.value(best),
        "best_iteration": best and best["iteration"],
        names.primary.last: names.value(last),
        "seconds": fit["seconds"],
        "training_seconds": fit["training_seconds"],
        "images": fit["images"],
    }
