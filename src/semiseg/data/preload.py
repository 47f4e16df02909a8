"""Imports of the server process, made once before it forks the processes that load batches."""

import signal

import semiseg.data.augment
import semiseg.data.loading  # noqa: F401

# Ctrl-C and batch systems signal the whole process group. Workers end when their server does, and the server
# ends with the main process, which still needs batches to finish its step.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
