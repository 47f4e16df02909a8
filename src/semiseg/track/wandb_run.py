"""Identity of a run in wandb: its id, group, name, tags and config; and the start of wandb."""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.config.compose import run_name
from semiseg.config.marks import mark_of
from semiseg.config.other_networks import other_parts
from semiseg.config.stored import Config, plain, settings_that_matter
from semiseg.contracts.dataset import Split
from semiseg.files import read_json
from semiseg.runs.directory import fingerprint

ID_FILE = "wandb_id"
SWEEP_INDEX = "sweep.json"
LONGEST_TAG = 64
"""Letters of a tag; wandb refuses a whole run for a longer one."""

NAMED = ("method", "dataset", "backbone", "model")


@dataclass(frozen=True)
class Identity:
    """Names of a run in wandb.

    Args:
        group: name of the group, equal for runs that differ only in the seed.
        name: name of the run.
        tags: words to filter by: chosen options, ``tags`` of the config, and "sweep:NAME" for a job of a sweep.
        config: the resolved config, and as plain columns with unique names ``method_name``,
            ``dataset_name``, ``backbone_name``, ``model_name``, for other networks of the method ones such as
            ``partner_backbone_name``, ``split_fraction`` (labeled share, 0-1), ``labeled_images``, ``split_sha``,
            ``sweep``, ``env`` and ``git``.
    """

    group: str
    name: str
    tags: list[str]
    config: dict[str, Any]


def identity(cfg: Config, split: Split, run_dir: Path) -> Identity:
    """Describe a run.

    Args:
        cfg: the checked config of the run.
        split: its images.
        run_dir: its directory, which may hold ``env.json`` and lie in that of a sweep.
    """
    names = {f"{key}_name": cfg[key]["name"] for key in NAMED}
    others = {key.removeprefix("method."): node.get("name") for key, node in other_parts(cfg).items()}
    names |= {f"{key.replace('.', '_')}_name": name for key, name in others.items()}
    sweep = sweep_name(run_dir)
    chosen = [cfg[key]["name"] for key in ("method", "backbone", "model")]
    also = [f"{key}:{name}" for key, name in others.items()]
    words = [cfg["dataset"]["name"], cfg["split"], *chosen, *also, *cfg["tags"]]
    if sweep is not None:
        words.append(f"sweep:{sweep}")
    return Identity(
        group=_group(cfg),
        name=run_name(cfg),
        tags=[word[:LONGEST_TAG] for word in dict.fromkeys(map(str, words)) if word],
        config={
            **plain(cfg),
            **_machine(run_dir),
            **names,
            "split_fraction": split.fraction,
            "labeled_images": len(split.labeled),
            "split_sha": dict(split.sha256),
            "sweep": sweep,
        },
    )


def sweep_name(run_dir: Path) -> str | None:
    """Name of the sweep of a run, which is that of its folder; ``None`` for a single run."""
    folder = run_dir.resolve().parent
    return folder.name if (folder / SWEEP_INDEX).is_file() else None


def stored_id(run_dir: Path) -> str:
    """Return the wandb id of a run directory, 8 letters and digits; chosen and stored at the first call.

    An agent of a wandb sweep gives the id, which is stored in its place: a run that is resumed without the
    agent goes on as the same run.
    """
    path = run_dir / ID_FILE
    try:
        found = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        found = ""
    given = os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""
    chosen = (
        given or found or "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    )
    if chosen != found:
        path.write_text(chosen + "\n", encoding="utf-8")
    return chosen


def start(
    mode: str,
    arguments: Mapping[str, Any],
    fail: Callable[[str], None],
    init_timeout: float,
    close_timeout: float,
) -> tuple[Any, Any]:
    """Start a wandb run that asks nothing, prints nothing and captures no output; return wandb and the run.

    Args:
        mode: "online" or "offline"; without an account or a server "online" becomes "offline".
        arguments: arguments of ``wandb.init``.
        fail: function that gets the reason why a run is not online.
        init_timeout: seconds that wandb may take to start.
        close_timeout: seconds that wandb may take to finish.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    # A console capture would fight with the progress bar, and the code's state is in the config.
    settings = wandb.Settings(
        silent=True, console="off", save_code=False, init_timeout=init_timeout, finish_timeout=close_timeout
    )
    given = {"reinit": "create_new", "settings": settings, **arguments}
    if mode == "online":
        try:
            # Without a key wandb.init would ask for one on the terminal.
            if not wandb.login(prompt=False):
                raise RuntimeError("no API key: run `wandb login`")
            return wandb, wandb.init(mode="online", resume="allow", **given)
        except Exception as error:  # whatever wandb raises, nothing depends on it
            fail(f"not online ({error_line(error)}); offline files are kept for `wandb sync`")
    return wandb, wandb.init(mode="offline", **given)


def error_line(error: Exception) -> str:
    """Describe an error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _group(cfg: Config) -> str:
    """Name of a run without its seed, and a hash of its settings, so that runs with other settings are not averaged in.

    A run to start from belongs to a seed, so it only counts whether there is one.
    """
    config = plain(cfg)
    matters = {
        key: value is not None if mark_of(key, config).role == "run" else value
        for key, value in settings_that_matter(config).items()
        if key != "seed" and mark_of(key, config).affects != "machine"
    }
    name = run_name({**config, "name": None}).removesuffix(f"-s{config['seed']}")
    return f"{name}-{fingerprint(matters)[:6]}"


def _machine(run_dir: Path) -> dict[str, Any]:
    try:
        env = dict(read_json(run_dir / "env.json"))
    except (OSError, ValueError, TypeError):
        env = {}
    git = env.pop("git", None)
    return {"env": env, "git": git and {"commit": git.get("commit"), "dirty": bool(git.get("diff"))}}
