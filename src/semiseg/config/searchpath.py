"""Where configs lie: in the package, in the working directory, and in a folder named on the command line."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

PACKAGE = Path(__file__).resolve().parents[1]


def shipped_root() -> Path:
    """Folder that holds ``conf`` and ``experiments``: the installed package, or the source checkout."""
    return PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1]


def conf_dir() -> Path:
    """Folder of the config groups that come with semiseg."""
    return shipped_root() / "conf"


def search_dirs() -> list[Path]:
    """All folders that options and presets are read from, the first one first."""
    return list(dict.fromkeys([conf_dir(), shipped_root(), Path.cwd()]))


def options(group: str) -> list[str]:
    """Sorted names of all options of a group, those of the working directory included."""
    folders = [folder / group for folder in search_dirs()]
    return sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})


def option_file(group: str, option: str) -> Path | None:
    """File of an option, or None where there is no such option."""
    paths = [folder / group / f"{option}.yaml" for folder in search_dirs()]
    return next((path for path in paths if path.is_file()), None)


def is_shipped(group: str, option: str) -> bool:
    """Whether an option is one of semiseg's own, not of the working directory."""
    return (conf_dir() / group / f"{option}.yaml").is_file()


class SemisegSearchPath(SearchPathPlugin):
    """Appends the folders of ``search_dirs`` to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append what is not there yet, so that nothing in the working directory hides a config of semiseg."""
        known = {entry.path for entry in search_path.get_path()}
        for folder in search_dirs():
            if (address := f"file://{folder}") not in known:
                search_path.append(provider="semiseg", path=address)


def register() -> None:
    """Make the folders known to Hydra in this process; twice does no harm."""
    Plugins.instance().register(SemisegSearchPath)
