"""Text that a config takes as it is, though it looks like a reference to another key."""

import re
from typing import Any


def literal(value: Any) -> Any:
    r"""Return a plain value in which the ``${`` of all texts is escaped as ``\${``, with the backslashes before it."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    if isinstance(value, list | tuple):
        return [literal(each) for each in value]
    return {key: literal(each) for key, each in value.items()} if isinstance(value, dict) else value
