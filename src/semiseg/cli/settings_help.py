"""``semiseg train WORDS --help``: help for settings, from their declarations."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from semiseg.config.build import DECODER_ARGUMENTS
from semiseg.config.compose import Draft, Request, draft
from semiseg.config.faults import ConfigFaults
from semiseg.config.layers import flatten
from semiseg.config.marks import mark_of
from semiseg.config.overrides import GROUPS
from semiseg.config.searchpath import option_file, options
from semiseg.config.stored import as_written
from semiseg.config.targets import OTHER_PARTS, BadTarget, complete, locate
from semiseg.declare import Setting, declared
from semiseg.errors import UserError, nearest, shown
from semiseg.settings import COMPONENTS, MISSING, PRESETS, RECORDS, OtherNetwork, RunSettings

TOP = "keys"
"""Word for the keys that are in no group."""

WIDEST = 120
EFFECTS = {
    "nothing": "changes no result; a run may go on with another value",
    "machine": "says where it runs; a run goes on with the same value",
    "data": "changes the images or labels",
    "training": "changes the training",
    "result": "changes how networks are measured",
}


def settings_help(words: Sequence[str]) -> str:
    """Explain the settings that words name.

    Args:
        words: ``GROUP=OPTION`` for the keys of an option, ``GROUP`` for the keys of trainer, evaluator or tracker or
            the options of another group, ``keys`` for the keys in no group, and any key, with or without a value.

    Raises:
        UserError: there is no such group, option or key.
    """
    found = draft(Request(tuple(word for word in words if "=" in word)))
    if found.cfg is None or found.faults:
        raise ConfigFaults(found.faults)
    config = as_written(found.cfg)
    for group in COMPONENTS:
        if any(word.partition("=")[0].split(".")[0] == group and word != group for word in words):
            complete(config[group], group)
    lines = [line for word in words for line in [*_explained(word, config, found), ""]]
    return "\n".join(lines[:-1])


def _explained(word: str, config: Mapping[str, Any], found: Draft) -> Iterator[str]:
    name, _, value = word.partition("=")
    if name == TOP:
        for key in declared(RunSettings):
            if key not in GROUPS:
                yield from _entry(key, config)
    elif name in RECORDS and not value:
        yield from _options(name)
        for key in declared(RECORDS[name]):
            yield from _entry(f"{name}.{key}", config)
    elif name in PRESETS and value:
        yield from _about(name, value)
        keys = [key for layer in found.layers[1:] for key in layer.values]
        for key in dict.fromkeys(keys):
            yield f"  {key}={shown(_value(key, config))}"
    elif name in GROUPS and value:
        yield from _about(name, value)
        yield from _below(name, config[name], config)
    elif name in GROUPS:
        yield from _options(name)
    else:
        yield from _entry(name, config)


def _about(group: str, option: str) -> Iterator[str]:
    yield f"{group}={option}"
    file = option_file(group, option)
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    head = [line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line]
    yield from _wrapped(" ".join(head[:1]), 4)


def _options(group: str) -> Iterator[str]:
    for option in options(group):
        yield from _about(group, option)


def _below(key: str, node: Any, config: Mapping[str, Any]) -> Iterator[str]:
    """Explain all keys of a node and of the nodes in it, in the order of their declaration."""
    if not isinstance(node, Mapping):
        return
    names = list(node)
    if "_target_" in node:
        yield f"  {key}._target_={node['_target_']}"
        order = list(declared(locate(str(node["_target_"]))))
        missing = [name for name in order if name not in names and name not in DECODER_ARGUMENTS]
        names = sorted([*names, *missing], key=lambda name: order.index(name) if name in order else -1)
    for name in names:
        if name in ("_target_", "name") and not (name == "name" and node.get(name) == MISSING):
            continue
        yield from _entry(f"{key}.{name}", config)
        if isinstance(node.get(name), Mapping):
            yield from _below(f"{key}.{name}", node[name], config)


def _entry(key: str, config: Mapping[str, Any]) -> Iterator[str]:
    setting = _setting(key, config)
    if setting is None:
        everywhere = [*flatten(config), *declared(RunSettings), *GROUPS, TOP]
        near = nearest(key, everywhere)
        raise UserError(f"there is no key {key}." + (f" Did you mean {near}?" if near else ""))
    value = _value(key, config, setting.default)
    nodes = isinstance(value, Mapping) or (
        isinstance(value, list) and any(isinstance(each, Mapping) for each in value)
    )
    missing = value == MISSING or (setting.required and value is setting.default)
    given = "" if nodes else " has to be given" if missing else f"={shown(value)}"
    yield f"  {key}{given}"
    text = setting.text.replace("``None``", "null").replace("``", "")
    yield from _wrapped(text[:1].upper() + text[1:], 6)
    effect = EFFECTS.get(mark_of(key, config).affects or "")
    kind = f"{setting.expected[:1].upper()}{setting.expected[1:]}"
    yield from _wrapped(f"{kind}; {effect}." if effect else f"{kind}.", 6)


def _value(key: str, config: Mapping[str, Any], default: Any = None) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name, default) if isinstance(value, Mapping) else default
    return value


def _setting(key: str, config: Mapping[str, Any]) -> Setting | None:
    """The declaration of a key; ``None`` where nothing declares it."""
    group, *below = key.split(".")
    if not below:
        return declared(RunSettings).get(group)
    if group in RECORDS:
        return declared(RECORDS[group]).get(below[0]) if len(below) == 1 else None
    if key in OTHER_PARTS:  # also where the method has no other network yet
        return declared(OtherNetwork)[below[-1]]
    node: Any = config.get(group)
    for name in below[:-1]:
        node = node.get(name) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None
    try:
        return declared(locate(str(node["_target_"]))).get(below[-1])
    except (BadTarget, TypeError, ValueError):
        return None


def _wrapped(text: str, indent: int) -> list[str]:
    width = min(WIDEST, shutil.get_terminal_size((100, 24)).columns)
    return [
        " " * indent + line
        for line in wrap(text, max(20, width - indent), break_long_words=False, break_on_hyphens=False)
    ]
