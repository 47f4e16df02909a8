"""The library timm, which is optional: importing it, its names, and its published weights that are not there."""

import difflib
from typing import Any

from semiseg.errors import UserError

INSTALL = 'pip install "semiseg[timm]"'


def timm_library(option: str) -> Any:
    """Import timm; ``option`` names in the error what needs it.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError(f"{option} needs the package timm: {INSTALL}") from error
    return timm


def require_known(name: str, option: str, key: str) -> None:
    """Refuse a name that timm does not know.

    Args:
        name: name of a network.
        option: what needs timm, for the error.
        key: key that the name was given with, for the error.

    Raises:
        UserError: it names the nearest ones.
    """
    timm = timm_library(option)
    network, _, tag = name.partition(".")
    if timm.is_model(name):
        known = [each.partition(".")[2] for each in timm.list_pretrained(f"{network}.*")]
        if tag and known and tag not in known:
            raise UserError(
                f"timm {timm.__version__} has no weights {tag} of {network}. There are {', '.join(known)}.",
                key=key,
                value=name,
            )
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    nearest = f" Did you mean {', '.join(near)}?" if near else ""
    raise UserError(
        f"timm {timm.__version__} has no network of this name.{nearest} timm.list_models() lists them all.",
        key=key,
        value=name,
    )


def not_fetched(name: str, option: str, error: Exception) -> UserError:
    """Return the error for published weights that are neither on this machine nor could be fetched."""
    origin = timm_library(option).get_pretrained_cfg(name).hf_hub_id or "no published file known"
    return UserError(
        f"The pretrained weights of {name} ({origin}) are not on this machine and could not be fetched "
        f"({error}). Copy the published model.safetensors here and give it with backbone.weights=PATH, or "
        "start from random weights with backbone.weights=none."
    )
