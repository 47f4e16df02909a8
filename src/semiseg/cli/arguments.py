"""Parsing of the arguments after a command."""

import argparse
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


def positive(kind: type[int] | type[float]) -> Any:
    """Return a reader of numbers above 0 for ``argparse``."""

    def number(text: str) -> int | float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    number.__name__ = kind.__name__
    return number
