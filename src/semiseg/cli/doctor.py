"""``semiseg doctor``: facts about this machine and its data, and problems with their cures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semiseg.cli.arguments import Parser
from semiseg.doctor import installation
from semiseg.doctor.findings import Section

UNUSABLE = 2


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg doctor`` with the arguments after its name; return 0 where semiseg can be used, else 2."""
    parser = Parser(
        prog="semiseg doctor",
        description="Show versions, devices, memory, disk, threads, datasets, weights, cache and the state of wandb, "
        "and each problem with its cure. Nothing is fetched or changed.",
        epilog="Exit code 0: usable; 2: something has to be corrected first.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")
    options = parser.parse_args(arguments)
    sections = examine()
    usable = not any(problem.fatal for section in sections for problem in section.problems)
    print(as_json(sections, usable) if options.json else as_text(sections, usable))
    return 0 if usable else UNUSABLE


def examine() -> list[Section]:
    """Inspect everything; where required packages are missing, only what needs none of them."""
    found = [installation.versions(), installation.devices(), installation.threads()]
    if any(problem.fatal for problem in found[0].problems):
        return found
    from semiseg.data.store_files import cache_folder
    from semiseg.doctor import resources

    places = {"runs": Path.cwd(), "cache": cache_folder(None), "weights": resources.weights_folder()}
    found += [installation.memory(), installation.disk_space(places)]
    return [*found, resources.datasets(), resources.weights(), resources.cache(), resources.wandb()]


def as_json(sections: Sequence[Section], usable: bool) -> str:
    """All facts and problems as JSON."""
    content = {
        section.title: {"facts": section.facts, "problems": [vars(problem) for problem in section.problems]}
        for section in sections
    }
    return json.dumps({"usable": usable, **content}, indent=2)


def as_text(sections: Sequence[Section], usable: bool) -> str:
    """All facts, then the problems, for reading."""
    lines = []
    for section in sections:
        lines.append(section.title)
        names = {key: key.removesuffix("_bytes") for key in section.facts}
        width = max(map(len, names.values()), default=0)
        lines += [f"  {names[key]:<{width}}  {_shown(key, value)}" for key, value in section.facts.items()]
        lines.append("")
    problems = [problem for section in sections for problem in section.problems]
    lines.append(f"problems: {len(problems) or 'none'}")
    for number, problem in enumerate(problems, start=1):
        what = problem.what.replace("\n", "\n     ")
        lines += [f"  {number}. {what}", f"     cure: {problem.cure}"]
    lines.append("semiseg can be used." if usable else "semiseg cannot be used before that is corrected.")
    return "\n".join(lines)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
    if isinstance(value, Mapping):
        return ", ".join(f"{count:,} {name}" for name, count in value.items())
    return str(value)
