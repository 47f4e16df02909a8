"""The command ``semiseg``: reads the command line, shows faults on one screen, sets the exit code.

Exit codes: 0 done, 2 something to correct, 1 a crash, 130 and 143 stopped by a signal, 75 time limit.
"""

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from semiseg import __version__
from semiseg.errors import Interrupted, RunFailed, UserError
from semiseg.output import lasting_output

USER_FAULT = 2
CRASH = 1
INTERRUPTED = 130
REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors by which the machine refuses a file: rights, a full disk, a disk that is only read."""

USAGE = """\
usage: semiseg train [KEY=VALUE | GROUP=OPTION]... [--plan] [-m] [--cfg job [--resolve]]
                     [--config-dir DIR --config-name NAME]
"""
KEYS = """\
keys, with their meaning, type, range, value and effect:
  semiseg train GROUP=OPTION --help       those of an option, for example method=cps; or of several
  semiseg train trainer --help            those of trainer, evaluator or tracker; of another group its options
  semiseg train keys --help               those that are in no group
  semiseg train KEY --help                one of them, for example trainer.device
  semiseg train --cfg job                 all of them with their values
"""
OPTIONS = """\
options of train:
  --plan              print what would be done and how long it would take, then stop
  -m, --multirun      one run for each combination of comma-separated values, each in its own process;
                      the same command with its sweep_dir runs only what is not done
  --cfg job           print the composed config, then stop; with --resolve without ${...}
  --config-dir DIR    read the primary config from another folder, such as a run directory ...
  --config-name NAME  ... and this file of it: run
"""
EXAMPLES = """\
examples:
  semiseg train                                      shapes drawn on the fly, a few minutes on a CPU
  semiseg train dataset=camvid dataset.root=PATH split=1/8 method=cps seed=0
  semiseg train backbone=timm backbone.name=tf_efficientnet_lite0 backbone.weights=FILE
  semiseg train -m method=supervised,cps,stpp split=1/16,1/8 seed=0,1,2 sweep_dir=DIR
  semiseg train run_dir=RUN                          go on with an interrupted run
  semiseg train --config-dir RUN --config-name run   run it again from the start
  semiseg eval RUN --mode slide --flip
  semiseg predict RUN photos -o OUT
  semiseg doctor
"""


class Command(NamedTuple):
    """A subcommand: a module whose ``main`` takes the arguments after its name, and one line for the help."""

    module: str
    summary: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_output():
        return _guarded(words)


def _guarded(words: list[str]) -> int:
    try:
        return _dispatch(words)
    except UserError as error:
        return _fail(str(error), USER_FAULT)
    except RunFailed as error:
        return _fail(str(error), CRASH)
    except Interrupted as error:
        return _fail(f"stopped: {error.reason}.", error.exit_code)
    except SystemExit as error:  # argparse, after its own message
        return error.code if isinstance(error.code, int) else USER_FAULT
    except KeyboardInterrupt:
        return _fail("interrupted.", INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in REFUSALS:
            return _fail(f"{error.filename or 'a file'}: {error.strerror}.", USER_FAULT)
        traceback.print_exc()
        return CRASH


def _fail(message: str, code: int) -> int:
    if os.environ.get("SEMISEG_DEBUG"):
        traceback.print_exc()
    print(f"semiseg: {message}", file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if words else USER_FAULT
    if words[0] == "--version":
        print(f"semiseg {__version__}")
        return 0
    if words[0] not in COMMANDS:
        from semiseg.errors import nearest

        near = nearest(words[0], COMMANDS)
        hint = f" Did you mean {near}?" if near else ""
        raise UserError(f"there is no command {words[0]!r}.{hint} There are: {', '.join(COMMANDS)}.")
    if words[0] == "train" and ("-h" in words or "--help" in words):
        asked = [word for word in words[1:] if word not in ("-h", "--help")]
        print(_settings_help(asked) if asked else help_text())
        return 0
    # Only the module of this command is imported, so that help and mistakes stay quick.
    module = importlib.import_module(COMMANDS[words[0]].module)
    code: int = module.main(words[1:])
    return code


def _settings_help(words: list[str]) -> str:
    from semiseg.cli.settings_help import settings_help

    return settings_help(words)


def help_text() -> str:
    """Subcommands, config groups with their options, examples."""
    from semiseg.config.searchpath import options
    from semiseg.settings import COMPONENTS, PRESETS, RECORDS

    commands = "\n".join(f"  {name:<14}{command.summary}" for name, command in COMMANDS.items())
    groups = "\n".join(
        f"  {group:<13}{', '.join(options(group)) or '(none)'}" for group in (*COMPONENTS, *RECORDS, *PRESETS)
    )
    return (
        "Train semantic segmentation networks from few labeled and many unlabeled images.\n\n"
        f"{USAGE}       semiseg COMMAND --help\n\ncommands:\n{commands}\n\n"
        f"config groups and their options:\n{groups}\n\n"
        f"{KEYS}\n"
        f"{OPTIONS}\n{EXAMPLES}"
    )


COMMANDS = {
    "init": Command("semiseg.cli.init", "look at a folder of own images and masks, write its dataset config"),
    "import": Command(
        "semiseg.cli.import_labels", "make masks and a dataset config from the files of a labeling tool"
    ),
    "train": Command(
        "semiseg.cli.train", "train on a dataset with few labels, evaluate, write a run directory"
    ),
    "eval": Command("semiseg.cli.eval", "evaluate a finished run in another way, or again"),
    "compare": Command("semiseg.cli.compare", "compare two runs, and the images where they disagree"),
    "report": Command(
        "semiseg.cli.report", "average runs over seeds, compare methods, write tables and pictures"
    ),
    "predict": Command("semiseg.cli.predict", "predict pictures: label maps, overlays, confidence"),
    "label": Command("semiseg.cli.label", "label pictures to correct by hand, and say which to label next"),
    "export-labels": Command(
        "semiseg.cli.export_labels", "write predictions or masks as files of a labeling tool"
    ),
    "export": Command("semiseg.cli.export", "write a network as ONNX or for torch.export, without semiseg"),
    "benchmark": Command("semiseg.cli.benchmark", "measure training steps and data pipelines"),
    "cache": Command(
        "semiseg.cli.cache",
        "decode a dataset's files ahead of its runs, compare or remove what is stored",
    ),
    "doctor": Command(
        "semiseg.cli.doctor", "show versions, devices, datasets and what is wrong with this machine"
    ),
    "splits": Command("semiseg.cli.splits", "list, make, import and check which training images are labeled"),
}
