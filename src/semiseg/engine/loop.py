"""The training loop: every fit of every method runs through ``Trainer.run``."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from semiseg.contracts.feeding import BatchSource
from semiseg.contracts.task import Scores
from semiseg.contracts.training import Learner, Network, OptimizerSpec, Progress
from semiseg.cores import loading_processes
from semiseg.data.loading import batches
from semiseg.engine.background_saves import BackgroundSaves
from semiseg.engine.checkpoint import TrainingState, save_bundle
from semiseg.engine.joint_optimizer import ROLE, build_optimizer, further_groups, schedules
from semiseg.engine.loss_check import LossCheck
from semiseg.engine.moments import evaluation_interval, is_candidate
from semiseg.engine.session import Session
from semiseg.engine.step import Meter, Watch, count_images, forward_backward, to_device
from semiseg.engine.steps import FitRecord
from semiseg.engine.update import Update
from semiseg.errors import Interrupted, UserError
from semiseg.files import copy
from semiseg.models.bundle import bundle
from semiseg.seeding import derive_seed, seed_everything


class Trainer:
    """One fit: the loop, its evaluations and its checkpoints.

    Args:
        session: data, device and settings that all steps of the run share.
        name: name of the step; with the seed and the iteration it determines every random draw.
        directory: directory of the step, for its networks.
        offset: optimizer steps of the run before this fit; added to the logged iteration.
        learner: networks to train, and their losses.
        streams: batches, and the length of the fit.
        snapshots: numbers of completed steps at which the primary network is kept.
        journal: size of the journal when the step began; it is cut back to this where there is no checkpoint.
        saved: function that is called with the number of completed steps whenever they have been saved.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        directory: Path,
        offset: int,
        learner: Learner,
        streams: BatchSource,
        snapshots: list[int],
        journal: int = 0,
        saved: Callable[[int], None] = lambda completed: None,
    ) -> None:
        self.session, self.names = session, session.task.names
        self.data, self.compute, self.training = session.data, session.compute, session.training
        self.output, self.stop = session.output, session.stop
        self.name, self.directory, self.offset = name, directory, offset
        self.streams, self.snapshots, self.journal, self.saved = streams, snapshots, journal, saved
        self.learner = learner
        # Before the optimizer is built, which keeps the parameters that it is given.
        session.compute.place(learner)
        spec = session.training.optimizer
        self.optimizer = build_optimizer(learner, spec, complete_groups(learner, spec))
        self.schedules = schedules(learner, session.training.schedule)
        trainer = session.training.trainer
        scaler = session.compute.scaler(sums=trainer.accumulate > 1)
        self.update = Update(learner, self.optimizer, scaler, trainer.clip_grad_norm)
        self.unsettled: tuple[Progress, LossCheck] | None = None
        self.checkpoints = TrainingState(session.output.run_dir / "checkpoints")
        self.save_began = time.monotonic()
        self.record = FitRecord()
        self.meter = Meter(session.compute.device)
        self.eval_every = evaluation_interval(
            trainer.eval_every, streams, by_epoch=trainer.iterations is None
        )

    @property
    def predictor(self) -> Network:
        """The network that is kept: the candidate that scored best in the last evaluation."""
        candidates = self.learner.candidates()
        last = self.record.last
        return candidates[last["predictor"]] if last else next(iter(candidates.values()))

    def run(self) -> FitRecord:
        """Train from the newest checkpoint to the end; raise ``Interrupted`` after saving where a stop is requested."""
        with BackgroundSaves(self.checkpoints) as saves:
            self.train(saves)
        self.finish()
        return self.record

    def train(self, saves: BackgroundSaves) -> None:
        """Train from the newest checkpoint to the end, as ``run`` does; the last state may still be on its way."""
        # Restored before the batches are opened: they begin at the iteration that the checkpoint reached.
        saved = self.restore()
        total = self.streams.iterations
        started = time.perf_counter() - self.record.seconds
        on_cuda = self.compute.device.type == "cuda"
        feed = batches(
            self.streams,
            self.data.dataset,
            self.training.seed,
            self.name,
            self.record.completed,
            num_workers=loading_processes(self.training.trainer.num_workers, on_cuda),
            pin_memory=on_cuda,
        )
        while True:
            completed = self.record.completed
            self.record.seconds = time.perf_counter() - started
            if completed in self.snapshots:
                self.save_network(f"snapshot-{completed}.pt", None)
            saves.collect()
            if completed > saved and self.save_due(completed, total):
                self.save(saves)
                saved = completed
            # After the save and before the evaluation, which may take minutes: evaluations are asked again on resume.
            try:
                self.stop.check()
                if self.evaluation_due(completed, total):
                    self.evaluate()
            except Interrupted:
                if completed > saved:
                    self.save(saves)
                saves.wait()
                raise
            if completed == total:
                break
            began = time.perf_counter()
            with self.meter.working():
                with self.meter.waiting():
                    batch = next(feed)
                self.step(to_device(batch, self.compute.device, self.compute.memory_format))
            self.record.training_seconds += time.perf_counter() - began
            self.report()
        self.record.seconds = time.perf_counter() - started

    def progress(self, iteration: int) -> Progress:
        """Return the position of a step in the fit, and its seed."""
        # A seed for each step, not a generator that runs on: a resumed fit draws what an uninterrupted one would.
        seed = derive_seed(self.training.seed, self.name, iteration)
        epoch = iteration // max(self.streams.iterations_per_epoch, 1)
        return Progress(iteration, self.streams.iterations, epoch, seed)

    def step(self, batch: dict[str, Any]) -> None:
        """Do one optimizer step; on a GPU all but its last part, which ``settle`` does."""
        self.settle()
        iteration, accumulate = self.record.completed, self.training.trainer.accumulate
        progress = self.progress(iteration)
        seed_everything(progress.seed)
        for group in self.optimizer.param_groups:
            schedule = self.schedules.get(group.get(ROLE, ""), self.training.schedule)
            group["lr"] = group["initial_lr"] * schedule.factor(iteration, self.streams.iterations)
        # At every step: a method may have put some of its networks into evaluation mode.
        self.learner.train()
        self.optimizer.zero_grad(set_to_none=True)
        checks: list[LossCheck] = []

        def checked(check: LossCheck) -> None:
            checks.append(check)
            if not check.late:
                check.require_finite()

        watch = Watch(self.compute.reading, checked, self.update.scaled)
        output = forward_backward(self.learner, batch, progress, accumulate, self.compute.autocast, watch)
        self.unsettled = progress, checks[0]
        if not checks[0].late:
            self.settle()
        images = count_images(batch)
        self.meter.add(output, images)
        self.record.images += images
        self.record.completed += 1

    def settle(self) -> None:
        """Let the last step change the weights and what follows them, if its loss is finite.

        The host of a GPU waits for its loss no earlier than it has the next batch, or needs the weights. Nothing that a
        step changes may be read, stored or logged before.

        Raises:
            LossNotFinite: it is not; weights, optimizer and EMA teachers are as they were before that step.
        """
        if self.unsettled is None:
            return
        progress, check = self.unsettled
        check.require_finite()
        self.unsettled = None
        self.update.apply()
        # Teachers and prototypes follow the weights that this step made.
        with torch.no_grad():
            self.learner.after_step(progress)

    def report(self) -> None:
        """Show the progress, and log the means of an interval at its end."""
        completed = self.record.completed
        self.output.tracker.progress(completed)
        if completed % self.training.trainer.log_every and completed != self.streams.iterations:
            return
        with self.meter.working():
            self.settle()
        rates = {f"lr/{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        values = self.meter.read() | rates | self.update.logged()
        self.output.tracker.log(values, self.offset + completed)
        self.meter = Meter(self.compute.device)

    def evaluation_due(self, completed: int, total: int) -> bool:
        """Whether the network of ``completed`` steps is to be evaluated and has not been; the last always is."""
        on_schedule = completed == total or self.is_candidate(completed)
        return bool(self.data.split.val) and on_schedule and self.record.evaluated < completed

    def is_candidate(self, completed: int) -> bool:
        """Whether the network of ``completed`` steps may become the best one."""
        return is_candidate(
            completed, self.streams.iterations, self.eval_every, self.training.trainer.eval_early
        )

    def evaluate(self) -> None:
        """Evaluate on the validation images, measure pseudo-labels, keep the best network."""
        self.settle()
        record, names = self.record, self.names
        measured = {name: self.measure(network) for name, network in self.learner.candidates().items()}
        scores = {name: each.primary for name, each in measured.items()}
        # NaN compares as neither more nor less, so it is ranked below every number by hand.
        chosen = max(scores, key=lambda name: (not math.isnan(scores[name]), scores[name]))
        record.last = {"iteration": record.completed, "predictor": chosen, **measured[chosen].as_dict()}
        values = names.logged("val", record.last, self.data.info.classes)
        if len(scores) > 1:
            values |= {f"val/{names.primary.key}/{name}": score for name, score in scores.items()}
        # Only now: which network is the predictor follows from ``record.last``.
        values |= self.session.label_quality(self.predictor)
        best = names.value(record.best)
        better = best is None or scores[chosen] > best or math.isnan(best)
        better = better and self.is_candidate(record.completed)
        if better:
            record.best = record.last
            self.save_network(f"best-{record.completed}.pt", scores[chosen])
        self.learner.after_evaluation(better, self.progress(record.completed - 1))
        record.evaluated = record.completed
        record.evaluations += 1
        self.output.tracker.log(values, self.offset + record.completed)
        every = self.training.trainer.samples_every
        if every is not None and record.evaluations % every == 0:
            samples = self.session.samples(self.predictor)
            self.output.tracker.images("val/samples", samples, self.offset + record.completed)

    def measure(self, network: Network) -> Scores:
        """Scores of a network on the validation images."""
        return self.session.evaluate(network, self.data.split.val)

    def save_network(self, name: str, score: float | None) -> None:
        """Write the network that is kept into the step's directory."""
        self.settle()
        values = bundle(
            self.predictor,
            self.data.info,
            self.output.config_of(self.predictor),
            step=self.name,
            iteration=self.record.completed,
            **{self.names.primary.key: score},
        )
        save_bundle(self.directory / name, values)

    def save_due(self, completed: int, total: int) -> bool:
        """Whether the state of ``completed`` steps is to be saved; that of the last always is."""
        every, minutes = self.training.trainer.checkpoint_every, self.training.trainer.checkpoint_minutes
        if completed == total or (every is not None and completed % every == 0):
            return True
        return minutes is not None and time.monotonic() - self.save_began >= 60 * minutes

    def save(self, saves: BackgroundSaves) -> None:
        """Begin to write the training state; training may go on while it is written."""
        self.settle()
        # First: what follows the state before is done before the record is that of this one.
        saves.wait()
        self.save_began = time.monotonic()
        record = self.record
        # Two: ``last.prev.pt`` must find its best network too, should ``last.pt`` turn out damaged.
        if record.best is not None:
            record.best_files = [*record.best_files, record.best["iteration"]][-2:]
        state = {
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "record": asdict(record),
            "meter": self.meter.state(),
            "journal": self.output.journal.position(),
            **self.update.state(),
        }
        completed = record.completed
        saves.start(self.name, state, lambda: self.after_save(completed))

    def after_save(self, completed: int) -> None:
        """Tell that a state is in place; drop best networks that no checkpoint refers to any more."""
        self.saved(completed)
        record = self.record
        # Deleted only after the new state is in place: until then the old one may be needed again. A network that has
        # become the best since is one that the next state will refer to.
        best = [record.best["iteration"]] if record.best is not None else []
        keep = {f"best-{iteration}.pt" for iteration in (*record.best_files, *best)}
        for path in self.directory.glob("best-*.pt"):
            if path.name not in keep:
                path.unlink()
                path.with_name(path.name + ".sha256").unlink(missing_ok=True)

    def restore(self) -> int:
        """Load the newest training state of this step; returns the number of completed steps."""
        state = self.checkpoints.load(self.name)
        if state is None:
            # A killed process may have logged steps that are done again now.
            self.output.journal.cut(self.journal)
            return 0
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.update.restore(state)
        self.record = FitRecord(**state["record"])
        self.meter.restore(state["meter"])
        self.output.journal.cut(state["journal"])
        return self.record.completed

    def finish(self) -> None:
        """Write ``last.pt`` and ``best.pt`` of the step; without validation images they are the same."""
        record = self.record
        self.save_network("last.pt", self.names.value(record.last))
        source = f"best-{record.best['iteration']}.pt" if record.best else "last.pt"
        # The digest first, as ``save_bundle`` does.
        for suffix in (".sha256", ""):
            copy(self.directory / (source + suffix), self.directory / f"best.pt{suffix}")


def complete_groups(learner: Learner, spec: OptimizerSpec) -> list[dict[str, Any]]:
    """Return the parameter groups of a learner, all of whose trainable parameters are in them.

    Raises:
        UserError: one is in no group, and would silently stay untrained.
    """
    groups = [*learner.param_groups(spec), *further_groups(learner)]
    held = {id(parameter) for group in groups for parameter in group["params"]}
    left = [name for name, each in learner.named_parameters() if each.requires_grad and id(each) not in held]
    if left:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        name = type(learner).__name__
        raise UserError(
            f"{name}: its parameter '{left[0]}'{more} is trainable and in no group of the optimizer, so that it would "
            f"never be trained. Attach its module to a network, freeze it with requires_grad_(False), or override "
            f"Learner.param_groups in {name} to return a group for it, or Learner.further to give it an optimizer."
        )
    return groups


def tidy(directory: Path) -> None:
    """Remove the candidates for the best network from a step that is recorded as done."""
    for path in directory.glob("best-*"):
        path.unlink(missing_ok=True)
