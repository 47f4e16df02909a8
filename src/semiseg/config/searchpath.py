"""Folders of configs: in the package, in the working directory, and one named on the command line."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

PACKAGE = Path(__file__).resolve().parents[1]


def shipped_root() -> Path:
    """Return the folder that holds ``conf`` and ``experiments``: the installed package, or the source checkout."""
    return PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1]


def conf_dir() -> Path:
    """Return the folder of the config groups that come with semiseg."""
    return shipped_root() / "conf"


def search_dirs() -> list[Path]:
    """Return all folders that options and presets are read from, in the order of the search."""
    return list(dict.fromkeys([conf_dir(), shipped_root(), Path.cwd()]))


def options(group: str) -> list[str]:
    """Return the sorted names of all options of a group, those of the working directory included."""
    folders = [folder / group for folder in search_dirs()]
    return sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})


def option_file(group: str, option: str) -> Path | None:
    """Return the file of an option; ``None`` where there is no such option."""
    paths = [folder / group / f"{option}.yaml" for folder in search_dirs()]
    return next((path for path in paths if path.is_file()), None)


def is_shipped(group: str, option: str) -> bool:
    """Whether an option is one of semiseg's own, not of the working directory."""
    return (conf_dir() / group / f"{option}.yaml").is_file()


class SemisegSearchPath(SearchPathPlugin):
    """Appends the folders of ``search_dirs`` to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append missing folders at the end, so that no file of the working directory hides a config of semiseg."""
        known = {entry.path for entry in search_path.get_path()}
        for folder in search_dirs():
            if (address := f"file://{folder}") not in known:
                search_path.append(provider="semiseg", path=address)


def register() -> None:
    """Register the folders with Hydra in this process; may be repeated."""
    Plugins.instance().register(SemisegSearchPath)
