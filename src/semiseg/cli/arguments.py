"""Reading the words after a command."""

import argparse
from typing import NoReturn

from semiseg.errors import UserError


class Parser(argparse.ArgumentParser):
    """Reports mistakes as ``UserError``, which the command line shows on one screen."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process.

        Raises:
            UserError: always; it names the mistake and the command whose help shows the options.
        """
        raise UserError(f"{message}. `{self.prog} --help` shows the options.")
