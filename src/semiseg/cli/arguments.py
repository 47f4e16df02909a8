"""Parsing of the arguments after a command."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from semiseg.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser that reports mistakes as ``UserError``, which the command line shows on one screen."""

    def error(self, message: str) -> NoReturn:
        """Raise ``UserError`` instead of leaving the process.

        Raises:
            UserError: always; it names the mistake and the command whose help shows the options.
        """
        raise UserError(f"{message}. `{self.prog} --help` shows the options.")


def run_parser(command: str, description: str, epilog: str) -> Parser:
    """Return the parser of a command whose first argument is a run directory.

    Args:
        command: name of the command.
        description: text before the options, with its line breaks.
        epilog: text after the options, with its line breaks.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=f"semiseg {command}", description=description, epilog=epilog, formatter_class=raw)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    return parser


def number(kind: type[int] | type[float], name: str, admits: Callable[[float], bool], fault: str) -> Any:
    """Return a reader of numbers for ``argparse``.

    Args:
        kind: type of the numbers.
        name: name of the type in messages.
        admits: whether a number is in the range.
        fault: description of numbers that are not, such as "is below 0".
    """

    def read(text: str) -> int | float:
        value = kind(text)
        if not admits(value):
            raise argparse.ArgumentTypeError(f"{text} {fault}")
        return value

    read.__name__ = name
    return read


def positive(kind: type[int] | type[float]) -> Any:
    """Return a reader of finite numbers above 0 for ``argparse``."""
    return number(kind, kind.__name__, lambda value: 0 < value < math.inf, "is not above 0, or has no end")


def share_or_name(text: str) -> str | float:
    """Read a share of images, or the name of a list or folder."""
    try:
        return float(text)
    except ValueError:
        return text
