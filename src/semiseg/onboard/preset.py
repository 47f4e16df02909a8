"""The preset that ``semiseg init`` writes: how to train on the new dataset, as plain keys with their reasons."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from semiseg.config.literals import literals, quoted
from semiseg.config.searchpath import shipped_root
from semiseg.contracts.dataset import DatasetInfo
from semiseg.errors import RunFailed, UserError
from semiseg.files import write_text, writes
from semiseg.onboard.measure import Measures
from semiseg.onboard.training_choice import SUPERVISED, ChosenKey, Facts, TrainingChoice, choose_training
from semiseg.onboard.training_length import Length, Speed, training_length
from semiseg.onboard.training_numbers import NETWORKS

WIDTH = 118
"""Longest line of a comment."""


@dataclass(frozen=True)
class Preset:
    """How to train on a dataset.

    Args:
        name: name of the dataset, and of the preset.
        facts: what the choice depends on.
        choice: what was chosen.
        length: how long to train.
        unmeasured: reason why no time was measured; ``None`` where it was.
    """

    name: str
    facts: Facts
    choice: TrainingChoice
    length: Length
    unmeasured: str | None = None

    @property
    def method(self) -> str:
        """Option of the method: one of the working directory where it has settings of its own."""
        return self._option(self.choice.method, self.choice.method_settings)

    @property
    def supervised(self) -> str:
        """Option of the method that learns from labels alone."""
        return self._option(SUPERVISED, self.choice.supervised_settings)

    @property
    def sweeps(self) -> list[str]:
        """Overrides of the sweeps to compare: methods without which a result says little, and the chosen one."""
        # A probe of random features says nothing.
        pretrained = any(each.key == "backbone.weights" for each in self.choice.settings)
        floor = ["probe"] if pretrained else []
        rate = self.choice.supervised_rate
        if rate is None:
            return [f"method={','.join(dict.fromkeys([*floor, self.supervised, self.method]))}"]
        return [
            f"method={','.join([*floor, self.method])}",
            f"method={self.supervised} optimizer.lr={rate:g}",
        ]

    @property
    def files(self) -> dict[Path, str]:
        """Texts of the files by their paths in the working directory."""
        files = {preset_file(self.name): _preset_yaml(self)}
        methods = {
            SUPERVISED: self.choice.supervised_settings,
            self.choice.method: self.choice.method_settings,
        }
        for method, settings in methods.items():
            if settings:
                option = self._option(method, settings)
                files[method_file(option)] = _method_yaml(self.name, method, option, settings)
        return files

    def _option(self, method: str, settings: Sequence[ChosenKey]) -> str:
        return f"{method}_{self.name}" if settings else method


def preset_file(name: str) -> Path:
    """Return the path of the preset of a dataset."""
    return Path("experiments") / f"{name}.yaml"


def method_file(option: str) -> Path:
    """Return the path of an option of ``method``."""
    return Path("method") / f"{option}.yaml"


def preset_files(name: str) -> list[Path]:
    """Return all files that may be written for a dataset, before its method is chosen.

    Raises:
        UserError: semiseg has a preset of this name, which would be read instead.
    """
    path = preset_file(name)
    shipped = shipped_root() / path
    if shipped.is_file() and shipped.resolve() != path.resolve():
        raise UserError(
            f"experiments={name} is one of semiseg's own presets; choose another name: --name my_{name}, or write "
            "none: --no-preset"
        )
    methods = sorted({SUPERVISED, *(row.semi for row in NETWORKS.values())})
    return [path, *(method_file(f"{method}_{name}") for method in methods)]


def make_preset(
    name: str, info: DatasetInfo, measures: Measures, minutes: float, weights: Path | None
) -> Preset:
    """Choose how to train on a dataset; the time of its steps is measured on this machine.

    Args:
        name: name of the dataset.
        info: its classes and channels.
        measures: counts of its images and pixels.
        minutes: time for one run.
        weights: file of pretrained weights; ``None`` takes those that are fetched.

    Raises:
        UserError: the file of weights does not fit the chosen network.
        Interrupted: a stop was requested.
    """
    facts = _facts(info, measures, minutes, weights)
    choice = choose_training(facts)
    speed, reason = _speed(info, facts, choice)
    return Preset(name, facts, choice, training_length(facts, choice, speed), reason)


def _facts(info: DatasetInfo, measures: Measures, minutes: float, weights: Path | None) -> Facts:
    holders = [sum(each[label] for each in measures.images.values()) for label in range(info.num_classes)]
    return Facts(
        labeled=measures.parts["train"],
        unlabeled=measures.parts["unlabeled"],
        val=measures.parts["val"],
        test=measures.parts["test"],
        sizes=measures.sizes,
        classes=info.classes,
        pixels=tuple(measures.pixels[:-1]),
        holders=tuple(holders),
        channels=info.channels,
        gpu_gib=_gpu_gib(),
        timm=importlib.util.find_spec("timm") is not None,
        minutes=minutes,
        weights=None if weights is None else str(weights),
    )


def _gpu_gib() -> float | None:
    """Return the memory of the GPU that a run would take; ``None`` where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30)


def _speed(info: DatasetInfo, facts: Facts, choice: TrainingChoice) -> tuple[Speed | None, str | None]:
    from semiseg.onboard.step_speed import measure_speed

    size = choice.size.height, choice.size.width
    try:
        return measure_speed(overrides(choice), info, facts, size), None
    except (UserError, RunFailed) as error:
        if facts.weights is not None:
            raise UserError(f"--weights {facts.weights}, for {choice.report['network']}: {error}") from error
        return None, " ".join(str(error).split())


def overrides(choice: TrainingChoice) -> list[str]:
    """Return the choice as overrides of the command line."""
    options = {**choice.groups, "method": choice.method}
    keys = [
        *choice.settings,
        *(ChosenKey(f"method.{each.key}", each.value) for each in choice.method_settings),
    ]
    return [
        *(f"{group}={option}" for group, option in options.items()),
        *(
            f"{each.key}={quoted(each.value) if isinstance(each.value, str) else _plain(each.value)}"
            for each in keys
        ),
    ]


def write_preset(preset: Preset) -> None:
    """Write the files of a preset; print their paths.

    Raises:
        UserError: they cannot be written.
    """
    for path, text in preset.files.items():
        with writes(path, "Make room, or go on without it: --no-preset."):
            path.parent.mkdir(exist_ok=True)
            write_text(path, text)
        print(f"written  {path}")


def preset_report(preset: Preset) -> list[str]:
    """Return what was chosen and why, as a few lines."""
    length = preset.length
    time = "" if length.seconds is None else f", about {_duration(length.seconds)}"
    lines = [
        "",
        f"training on {preset.name}, as {preset_file(preset.name)} says",
        *(f"  {title:<8} {text}" for title, text in preset.choice.report.items()),
        f"  {'length':<8} {length.iterations:,} iterations{time}. {length.reason}",
        *(f"  note     {text}" for text in preset.choice.warnings),
    ]
    if preset.unmeasured:
        lines.append(f"  note     the time of a step could not be measured: {preset.unmeasured}")
    return lines


def preset_steps(preset: Preset) -> list[str]:
    """Return the commands that train by the preset."""
    name = preset.name
    return [
        *(
            f"semiseg train -m experiments={name} {words} seed=0,1,2 sweep_dir=runs/{name}"
            for words in preset.sweeps
        ),
        f"semiseg report runs/{name}",
        f"semiseg train experiments={name}    the chosen method alone; --plan shows its time first",
    ]


def _preset_yaml(preset: Preset) -> str:
    facts, choice, length = preset.facts, preset.choice, preset.length
    time = "" if length.seconds is None else f" About {_duration(length.seconds)} on this machine."
    counts = f"{facts.labeled:,} labeled, {facts.unlabeled:,} unlabeled, {facts.val:,} validation images"
    settings = [
        ChosenKey("split", "full", "All labels; the pictures without are the unlabeled images."),
        *preset.choice.settings,
        ChosenKey("trainer.iterations", length.iterations, f"{length.reason}{time}"),
        *([ChosenKey("trainer.eval_every", length.eval_every)] if facts.val else []),
    ]
    return "\n".join(
        [
            "# @package _global_",
            f"# How to train on {preset.name}: {counts}, on {facts.machine}, {facts.minutes:g} minutes a run.",
            *(f"#   {each}" for each in preset_steps(preset)),
            "# Written by `semiseg init`; change what you like. A key on the command line wins over this file.",
            "defaults:",
            f"  - override /dataset: {_plain(preset.name)}",
            *_comment(choice.network_reason, "  "),
            *(f"  - override /{group}: {option}" for group, option in choice.groups.items()),
            *_comment(f"{_sentence(choice.method_reason)}", "  "),
            f"  - override /method: {preset.method}",
            "  - _self_",
            *_tree_lines(settings),
            "",
        ]
    )


def _method_yaml(name: str, method: str, option: str, settings: Sequence[ChosenKey]) -> str:
    return "\n".join(
        [
            f"# {method} as experiments/{name}.yaml takes it: its own settings, which other methods do not have.",
            "# Written by `semiseg init`; change what you like.",
            "defaults:",
            f"  - {method}",
            "  - _self_",
            f"name: {_plain(option)}",
            *_tree_lines(settings),
            "",
        ]
    )


def _tree_lines(settings: Sequence[ChosenKey]) -> list[str]:
    """Write keys with dots as YAML, each below its group, with the reasons as comments."""
    lines: list[str] = []
    for top in dict.fromkeys(each.key.partition(".")[0] for each in settings):
        below = [each for each in settings if each.key.partition(".")[0] == top]
        if below[0].key == top:
            lines += [*_comment(below[0].reason), f"{top}: {_plain(below[0].value)}"]
            continue
        inner = [ChosenKey(each.key.partition(".")[2], each.value, each.reason) for each in below]
        lines += [f"{top}:", *(f"  {line}" for line in _tree_lines(inner))]
    return lines


def _comment(text: str, indent: str = "") -> list[str]:
    """Write a text as lines of comment."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + len(word) < WIDTH - 4:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{indent}# {word}")
    return lines


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _plain(value: Any) -> str:
    """Write a value as YAML on one line."""
    text = yaml.safe_dump(literals(value), default_flow_style=True, allow_unicode=True, width=1000)
    return text.removesuffix("...\n").strip()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
