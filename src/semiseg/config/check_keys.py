"""Check keys, types and ranges against the schema; this module does not import torch."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semiseg.config.faults import Fault, faults_of_error
from semiseg.config.literals import literals
from semiseg.config.overrides import GROUPS
from semiseg.config.schema import structured
from semiseg.config.searchpath import options
from semiseg.config.split_keys import split_faults
from semiseg.declare import choices, declared, fits
from semiseg.errors import UserError, listed, nearest, shown
from semiseg.settings import COMPONENTS, PRESETS, RECORDS, EvaluatorSettings, RunSettings


def check_settings(cfg: DictConfig) -> list[Fault]:
    """Find unknown keys, missing values, wrong types and values out of range, at any depth."""
    values, faults = plain_values(cfg)
    found = list(_check_fields(values, RunSettings, ""))
    broken = {fault.key for fault in [*faults, *found]}
    for key in COMPONENTS:
        if key in values and not (isinstance(values[key], dict) and "_target_" in values[key]):
            found.append(Fault(key, f"needs a _target_; choose one of: {listed(options(key))}.", values[key]))
    trainer, evaluator = (
        values[key] if isinstance(values.get(key), dict) else {} for key in ("trainer", "evaluator")
    )
    for key, value, rule in [
        ("split", values.get("split"), _split),
        ("trainer.device", trainer.get("device"), wrong_device),
        ("trainer.max_time", trainer.get("max_time"), _max_time),
    ]:
        if key not in broken and value is not None and (expected := rule(value)):
            found.append(Fault(key, expected, value))
    return [*faults, *found, *_combinations(values), *_evaluator_faults(evaluator, broken)]


def check_evaluator(values: Mapping[str, Any]) -> list[Fault]:
    """Find values of an evaluator that are out of range, alone or together with others."""
    found = list(_check_fields(values, EvaluatorSettings, "evaluator."))
    return [*found, *_evaluator_faults(values, {fault.key for fault in found})]


def plain_values(cfg: DictConfig) -> tuple[dict[str, Any], list[Fault]]:
    """Resolve a config to plain values; a value that is missing or cannot be resolved becomes a fault instead."""
    faults: list[Fault] = []

    def plain(node: Any, prefix: str) -> Any:
        if isinstance(node, DictConfig):
            return dict(entries(node, [(key, f"{prefix}.{key!s}" if prefix else str(key)) for key in node]))
        if OmegaConf.is_list(node):
            return [value for _, value in entries(node, [(i, f"{prefix}[{i}]") for i in range(len(node))])]
        return node

    def entries(node: Any, keys: list[tuple[Any, str]]) -> Iterator[tuple[Any, Any]]:
        for key, path in keys:
            if OmegaConf.is_missing(node, key):
                faults.append(Fault(path, _missing(path)))
                continue
            try:
                value = node[key]
            except OmegaConfBaseException as error:
                faults.extend(_unresolved(path, error))
                continue
            yield key, plain(value, path)

    return plain(cfg, ""), faults


def resolves(cfg: DictConfig) -> bool:
    """Whether every interpolation of a config finds its key and value."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:
        return False
    return True


def _unresolved(path: str, error: OmegaConfBaseException) -> list[Fault]:
    # OmegaConf wraps what a resolver raises, and only the inner error says how to go on.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return faults_of_error(cause, path)
        cause = cause.__cause__ or cause.__context__
    return [Fault(path, f"cannot be resolved: {str(error).splitlines()[0]}")]


def _missing(path: str) -> str:
    if path.endswith("backbone.name"):
        return f"has to be given: the name of a network of timm, for example {path}=tf_efficientnet_lite0."
    if path.endswith("backbone.network"):
        return (
            f"has to be given: timm's name of a plain transformer, for example {path}=vit_base_patch16_224."
        )
    group = path if path in GROUPS else None
    return f"has to be given; choose one of: {listed(options(group))}." if group else "has to be given."


def _check_fields(values: Mapping[str, Any], cls: type, prefix: str) -> Iterator[Fault]:
    known = declared(cls)
    probe = OmegaConf.structured(structured(cls))
    for key, value in values.items():
        path = f"{prefix}{key}"
        if key not in known:
            yield _unknown(path, value, prefix, list(known))
        elif key in RECORDS and not prefix:
            if isinstance(value, dict):
                yield from _check_fields(value, RECORDS[key], f"{path}.")
            else:
                yield Fault(path, "expected keys and values below it.", value)
        elif not _fits(probe, key, value, known[key].hint):
            near = nearest(shown(value), choices(known[key].hint))
            yield Fault(path, f"expected {known[key].expected}.", value, near)


def _fits(probe: DictConfig, key: str, value: Any, hint: Any) -> bool:
    """Whether a value fits after the conversion of OmegaConf, which reads the text "5" as the number 5."""
    if isinstance(value, list | dict) and not fits(value, hint):
        return False  # OmegaConf would turn it into text
    try:
        probe[key] = literals(value)
    except OmegaConfBaseException:
        return False
    converted = probe[key]
    return fits(OmegaConf.to_container(converted) if OmegaConf.is_config(converted) else converted, hint)


def _unknown(path: str, value: Any, prefix: str, known: list[str]) -> Fault:
    everywhere = all_keys()
    name = path.rsplit(".", 1)[-1]
    same_name = [key for key in everywhere if key.rsplit(".", 1)[-1] == name]
    sibling = nearest(name, known if prefix else [*known, *PRESETS])
    found = next(iter(same_name), None) or (f"{prefix}{sibling}" if sibling else None)
    below = prefix.rstrip(".") or "the config"
    return Fault(path, f"no such key.\n{below} has: {listed(known)}.", value, found)


def all_keys() -> list[str]:
    """Dotted names of all keys of the run's settings."""
    keys = list(declared(RunSettings))
    return [
        *keys,
        *(f"{group}.{key}" for group, record in RECORDS.items() for key in declared(record)),
        *PRESETS,
    ]


def _split(value: Any) -> str | None:
    text = str(value).strip()
    share = re.fullmatch(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text)
    right = text == "full" or (text.isdigit() and int(text) > 0)
    if share and 0 < float(share[1]) <= float(share[2]):
        right = True
    return None if right else 'expected a share such as 1/8, a number of images such as 732, or "full".'


def wrong_device(value: Any) -> str | None:
    """Say which names of devices there are, or return ``None`` for such a name."""
    right = re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(value))
    return None if right else "expected auto, cpu, cuda, or one GPU such as cuda:0."


def _max_time(value: Any) -> str | None:
    right = re.fullmatch(r"\d+(\.\d+)?|\d+(:[0-5]\d){2}", str(value))
    return None if right else 'expected minutes (90) or "H:MM:SS" ("1:30:00").'


def _stride(value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    right = number and (value <= 1 or float(value).is_integer())
    return None if right else "expected a share of the window up to 1, or whole pixels."


def _combinations(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Find values that are right by themselves and wrong together."""
    yield from split_faults(values)
    if values.get("init_sha256") is not None and values.get("init_from") is None:
        yield Fault("init_sha256", "is the digest of init_from, which is not given.", values["init_sha256"])
    method = values.get("method")
    rounds = method.get("probe_rounds") if isinstance(method, Mapping) else None
    if rounds and values.get("init_head", "random") == "random":
        needed = "is for classifiers that begin as a probe. Give init_head=probe, or 0."
        yield Fault("method.probe_rounds", needed, rounds)


def _evaluator_faults(evaluator: Mapping[str, Any], broken: Collection[str]) -> Iterator[Fault]:
    """Find faults beyond types and ranges; ``broken`` are keys whose faults are known."""
    value = evaluator.get("stride")
    if "evaluator.stride" not in broken and value is not None and (expected := _stride(value)):
        yield Fault("evaluator.stride", expected, value)
    pad, pad_to = evaluator.get("pad", "none"), evaluator.get("pad_to", 0)
    if pad in ("size", "multiple", "center") and pad_to == 0:
        yield Fault("evaluator.pad_to", f"evaluator.pad={pad} needs a number of pixels above 0.", pad_to)
    if evaluator.get("mode") == "slide" and pad != "none":
        yield Fault("evaluator.pad", "is for whole images and has no effect with evaluator.mode=slide.", pad)
    if pad == "none":
        for key, usual in (("pad_to", 0), ("pad_value", "zero")):
            if (value := evaluator.get(key, usual)) != usual:
                unused = "has no effect with evaluator.pad=none; choose size, multiple or center."
                yield Fault(f"evaluator.{key}", unused, value)
    yield from _without_effect(evaluator)
    yield from _unmeasured(evaluator, broken)
    stride, window = evaluator.get("stride"), evaluator.get("window")
    if isinstance(stride, int | float) and isinstance(window, int) and stride > window:
        yield Fault("evaluator.stride", f"larger than the window ({window}) would leave gaps.", stride)


def _without_effect(evaluator: Mapping[str, Any]) -> Iterator[Fault]:
    """Find settings of windows for whole images, and settings of whole images that exclude each other."""
    mode, fit = evaluator.get("mode", "whole"), evaluator.get("fit", "pad")
    if fit == "resize" and mode == "slide":
        yield Fault("evaluator.fit", "is for whole images and has no effect with evaluator.mode=slide.", fit)
    elif fit == "resize" and evaluator.get("pad", "none") != "none":
        yield Fault(
            "evaluator.fit", "resizes images, so that nothing is padded: give evaluator.pad=none.", fit
        )
    if fit == "pad" and (value := evaluator.get("fit_to")) is not None:
        yield Fault(
            "evaluator.fit_to", "has no effect with evaluator.fit=pad; choose evaluator.fit=resize.", value
        )
    usual = (("stride_rounding", "up"), ("window_edge", "shift"), ("window_sum", "logits"))
    for key, first in usual if mode == "whole" else ():
        if (value := evaluator.get(key, first)) != first:
            yield Fault(
                f"evaluator.{key}", "has no effect without windows; give evaluator.mode=slide.", value
            )


def _unmeasured(evaluator: Mapping[str, Any], broken: Collection[str]) -> Iterator[Fault]:
    """Find a primary score that the other settings do not let be measured."""
    if {"evaluator.primary", "evaluator.metrics", "evaluator.foreground"} & set(broken):
        return
    primary, foreground = str(evaluator.get("primary", "")), evaluator.get("foreground") or []
    if primary.endswith("boundary_iou") and "boundary_iou" not in (evaluator.get("metrics") or []):
        yield Fault("evaluator.primary", "needs evaluator.metrics=[boundary_iou].", primary)
    if primary.startswith("foreground") and not foreground:
        needs = "needs the names of the classes, such as evaluator.foreground=[NAME,NAME]."
        yield Fault("evaluator.primary", needs, primary)
    if len(set(map(str, foreground))) < len(foreground):
        yield Fault("evaluator.foreground", "names a class twice.", foreground)
