"""Laws of imports: which part of the package may know which; type-only and late imports count like all others."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
FLOOR = ("semiseg.errors", "semiseg.seeding", "semiseg.declare", "semiseg.settings", "semiseg.contracts")

FORBIDDEN = {
    "contracts": (),
    "losses": (),
    "pseudo": (),
    "data": ("methods", "engine", "tasks", "config", "runs", "cli", "app", "report", "sweep", "track"),
    "labels": ("models", "methods", "engine", "config", "runs", "cli", "app", "report", "sweep", "track"),
    "splits": ("methods", "engine", "tasks", "config", "runs", "cli", "app", "report", "sweep", "track"),
    "models": ("data", "engine", "tasks", "methods", "config", "runs", "cli", "app"),
    "engine": ("methods", "tasks", "config", "track", "runs", "cli", "app", "report", "sweep"),
    "tasks": ("methods", "config", "runs", "cli", "app", "report", "sweep"),
    "track": ("methods", "cli", "app", "report", "sweep"),
    "runs": ("methods", "cli", "app", "report", "sweep"),
    "report": ("methods", "cli", "app"),
    "methods": ("config", "runs", "track", "cli", "app", "report", "sweep"),
}
"""Part of the package: the parts that it must not import."""

CLOSED = {
    "semiseg.errors": (),
    "semiseg.seeding": (),
    "semiseg.declare": ("semiseg.errors",),
    "semiseg.settings": ("semiseg.declare", "semiseg.errors"),
    "semiseg.contracts": FLOOR,
    "semiseg.losses": (*FLOOR, "semiseg.losses"),
    "semiseg.pseudo": (*FLOOR, "semiseg.pseudo", "semiseg.data.pseudo"),  # exports the store of labels
}
"""Module or package of the lowest floor: all that it may import of semiseg."""

HOMES = {
    "hydra": ("semiseg.config", "semiseg.sweep", "hydra_plugins"),
    "omegaconf": ("semiseg.config", "semiseg.sweep", "hydra_plugins"),
    "albumentations": ("semiseg.data.augment", "semiseg.data.band_augment"),
    "rasterio": ("semiseg.data.raster",),
    "wandb": ("semiseg.track.wandb_run", "semiseg.track.wandb_tracker", "semiseg.report.upload"),
    "matplotlib": ("semiseg.report", "semiseg.apply.confusion", "semiseg.apply.reliability"),
    "torch.distributed": ("semiseg.distributed",),
    "argparse": ("semiseg.cli",),
}
"""Library: the only modules that import it."""

METHODS_OF_METHODS = {
    "semiseg.methods.supervised",
    "semiseg.methods.labeled_loss",
    "semiseg.methods.dmt",
    "semiseg.methods.unimatch",
    "semiseg.methods.confidence",
    "semiseg.methods.weak_strong",
    "semiseg.methods.averaged_teacher",
    "semiseg.methods.discriminated",
}
"""Methods that other methods build on, and the settings that several share."""


@cache
def imports() -> dict[str, set[str]]:
    """Imported names by module, wherever in it the import stands."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = set(_imported(ast.parse(path.read_text(encoding="utf-8"))))
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{each.name}" for each in node.names)


def below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def own(module: str) -> set[str]:
    """Modules of the package that a module imports."""
    known = imports()
    found = set()
    for name in imports()[module]:
        while name and name not in known:
            name = name.rpartition(".")[0]
        if name and name != module:
            found.add(name)
    return found


def breaches(part: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{module} imports {name}"
        for module in imports()
        if below(module, f"semiseg.{part}")
        for name in sorted(own(module))
        if any(below(name, f"semiseg.{each}") for each in forbidden)
    ]


@pytest.mark.parametrize("part", [part for part in FORBIDDEN if FORBIDDEN[part]])
def test_parts_know_only_what_lies_below_them(part: str) -> None:
    assert breaches(part, FORBIDDEN[part]) == []


@pytest.mark.parametrize("part", CLOSED)
def test_the_lowest_floor_stands_alone(part: str) -> None:
    outside = [
        f"{module} imports {name}"
        for module in imports()
        if below(module, part)
        for name in sorted(own(module))
        if name != "semiseg" and not any(below(name, each) for each in (*CLOSED[part], part))
    ]
    assert outside == []


@pytest.mark.parametrize("library", HOMES)
def test_libraries_have_one_home(library: str) -> None:
    strangers = [
        module
        for module, names in imports().items()
        if any(below(name, library) for name in names)
        and not any(below(module, home) for home in HOMES[library])
    ]
    assert strangers == []


def test_methods_build_on_few_others() -> None:
    others = [
        f"{module} imports {name}"
        for module in imports()
        if below(module, "semiseg.methods")
        for name in own(module)
        if below(name, "semiseg.methods") and name not in METHODS_OF_METHODS
    ]
    assert others == []


def test_nothing_imports_the_command_line_or_the_app() -> None:
    users = [
        f"{module} imports {name}"
        for module in imports()
        for name in own(module)
        if (below(name, "semiseg.cli") or name == "semiseg.app")
        and not below(module, "semiseg.cli")
        and module != "semiseg.__main__"
    ]
    assert users == []


def test_no_circle() -> None:
    """Tarjan's strongly connected components, of modules and not of packages: each is a single module."""
    graph = {module: sorted(own(module)) for module in imports()}
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for name in graph[module]:
            if name not in order:
                visit(name)
                low[module] = min(low[module], low[name])
            elif name in stack:
                low[module] = min(low[module], order[name])
        if low[module] == order[module]:
            circle = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(circle) > 1:
                circles.append(sorted(circle))

    for module in graph:
        if module not in order:
            visit(module)
    assert circles == []


def test_a_name_stands_for_one_thing() -> None:
    """Modules (commands are called like what they run) and public classes."""
    modules, classes = defaultdict(list), defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent.name != "cli" and path.stem not in ("__init__", "__main__"):
            modules[path.stem].append(str(path.relative_to(SOURCE)))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}
