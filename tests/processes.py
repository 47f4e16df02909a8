"""The command line in processes of its own that find torch imported already, which is most of a short run's time.

They are forked from a server that has imported the package and done nothing else, so that each is what
``python -m semiseg`` is after its imports: it can be killed, and takes signals as any process does.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import Signals

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("pytest", "wandb", "torchvision", "semiseg.cli", "semiseg.app"),
        *("semiseg.config.multirun", "semiseg.data.preload", "semiseg.models.tiny"),
    ]
)


class Command:
    """``semiseg WORDS`` in a process.

    Args:
        words: what follows ``semiseg``.
        environment: variables to set in it.
        prepare: called in it before the command.
    """

    def __init__(
        self,
        *words: str,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        handle, name = tempfile.mkstemp(prefix="semiseg-output-")
        os.close(handle)
        self._output = Path(name)
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        given = (words, variables, str(Path.cwd()), name, prepare)
        self._process = CONTEXT.Process(target=_run, args=given)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def send(self, number: Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self._process.pid or 0, number)

    def screen(self) -> str:
        """All output so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def finish(self, timeout: float = 120) -> tuple[int, str]:
        """Wait; return exit code and all output."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            self._process.kill()
            self._process.join()
        text = self.screen()
        self._output.unlink(missing_ok=True)
        assert code is not None, f"still running after {timeout:g} s:\n{text}"
        return code, text


def _run(
    words: tuple[str, ...],
    variables: Mapping[str, str],
    folder: str,
    output: str,
    prepare: Callable[[], None] | None,
) -> None:
    # The server, which loaders of batches use too, ignores them.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.path.insert(0, "")  # as python -m does
    screen = os.open(output, os.O_WRONLY | os.O_APPEND)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        os.dup2(screen, number)
        stream.flush()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    # DataLoader workers are forked as in a process that was started by hand.
    multiprocessing.set_start_method("fork", force=True)
    from semiseg.cli import main

    if prepare is not None:
        prepare()
    began = time.monotonic()
    code = main(words)
    print(f"(ended with {code} after {time.monotonic() - began:.1f} s)")
    sys.stdout.flush()
    raise SystemExit(code)
