"""Sources of the values of a config: command line, local.yaml, presets, own options, a stored config."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semiseg.config.faults import Fault
from semiseg.config.overrides import COMMAND_LINE, GROUPS, Given, choice_fault
from semiseg.config.searchpath import is_shipped, option_file
from semiseg.settings import PRESETS

LOCAL = "local.yaml"


@dataclass(frozen=True)
class Layer:
    """The values that one source sets.

    Args:
        name: file, or "command line".
        values: dotted keys and their values.
    """

    name: str
    values: Mapping[str, Any]

    def sets(self, key: str) -> bool:
        """Whether the source sets this key, one below it, or a whole node that holds it."""
        # "scales[0]" is a part of "scales" as "scales.0" would be.
        key = key.replace("[", ".").replace("]", "")
        return any(
            own == key or own.startswith(f"{key}.") or key.startswith(f"{own}.") for own in self.values
        )


def flatten(node: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted keys and values of nested mappings; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def command_layer(given: list[Given]) -> Layer:
    """Return the values that the command line sets; its choices of options are none."""
    values: dict[str, Any] = {}
    for each in given:
        if not each.is_group and not each.is_hydra and not each.parsed.is_sweep_override():
            values |= flatten({each.key: each.parsed.value()})
    return Layer(COMMAND_LINE, values)


def own_files(given: list[Given], primary: Path | None) -> list[tuple[Path, str]]:
    """Return the user's files, each with its config group ("" for the whole config), the strongest first.

    Args:
        given: overrides, which choose presets and own options.
        primary: primary config; ``None`` where it is semiseg's own.
    """
    paths: list[tuple[Path, str]] = [(Path(LOCAL), "")]
    choices = [(each.key, name) for each in given if each.is_group for name in reversed(each.choices)]
    for group in reversed(PRESETS):
        paths += [(path, "") for key, name in choices if key == group for path in _with_bases(group, name)]
    own = [(key, name) for key, name in choices if key not in PRESETS and not is_shipped(key, name)]
    paths += [(path, key) for key, name in own for path in _found(key, name)]
    return [*paths, (primary, "")] if primary else paths


def file_layers(files: Sequence[tuple[Path, str]]) -> list[Layer]:
    """Return the values that files set; see ``own_files``."""
    layers = []
    for path, group in files:
        if values := _read(path):
            values.pop("defaults", None)
            layers.append(Layer(str(path), flatten({group: values} if group else values)))
    return layers


def base_60_faults(files: Sequence[tuple[Path, str]]) -> list[Fault]:
    """Find values that YAML reads as numbers to the base 60: ``1:30:00`` without quotes is 5400."""
    faults = []
    for path, group in files:
        # The nodes of the parser, since values loaded from them have lost their spelling.
        for key, text in _numbers(_parsed(path, yaml.compose), f"{group}." if group else ""):
            if ":" in text:
                reading = f'YAML reads this as the number {yaml.safe_load(text)}. Put it in quotes: "{text}".'
                faults.append(Fault(key, reading, text, source=str(path)))
    return faults


def register_local() -> list[Fault]:
    """Register ./local.yaml with Hydra as ``local: default``; without the file an empty one.

    A text where a group is expected chooses an option: ``dataset: camvid``.
    """
    node, faults = _read_local()
    chosen = {key: node.pop(key) for key in list(node) if key in GROUPS and isinstance(node[key], str)}
    wrong = {group: fault for group, name in chosen.items() if (fault := choice_fault(group, name, LOCAL))}
    faults += wrong.values()
    usable = {group: name for group, name in chosen.items() if group not in wrong}
    node["defaults"] = [*({f"override /{group}": name} for group, name in usable.items()), "_self_"]
    ConfigStore.instance().store(group="local", name="default", node=node, package="_global_", provider=LOCAL)
    return faults


def _read_local() -> tuple[dict[str, Any], list[Fault]]:
    path = Path(LOCAL)
    if not path.is_file():
        return {}, []
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (yaml.YAMLError, OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        return {}, [Fault(LOCAL, f"cannot be read: {error}")]
    if not isinstance(loaded, dict):
        return {}, [Fault(LOCAL, "expected keys and values, for example\ntrainer:\n  num_workers: 4")]
    return {str(key): value for key, value in loaded.items()}, []


def _found(group: str, name: str) -> list[Path]:
    path = option_file(group, name)
    return [path] if path else []


def _with_bases(group: str, name: str) -> Iterator[Path]:
    """Return the file of a preset and those of the presets that it is based on."""
    for path in _found(group, name):
        yield path
        for base in (_read(path) or {}).get("defaults", []):
            if isinstance(base, str) and base != "_self_" and not base.startswith("/"):
                yield from _with_bases(group, base)


def _parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    """Parse a YAML file; ``None`` where it is missing or broken, which Hydra reports."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _numbers(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield dotted keys and texts of all numbers below a node, lists left out."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if value.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
            yield name, value.value
        yield from _numbers(value, f"{name}.")


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a YAML file of keys; ``None`` where ``_parsed`` finds none."""
    loaded = _parsed(path, yaml.safe_load)
    return loaded if isinstance(loaded, dict) else None
