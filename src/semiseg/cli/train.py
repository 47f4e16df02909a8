"""``semiseg train``: one run, or the runs of a sweep, from the arguments of the command line."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from semiseg.cli.arguments import Parser
from semiseg.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg train`` with the arguments after its name; return the exit code.

    Raises:
        UserError: options that exclude each other, or faults of the config.
        RunFailed: the run could not go on.
        Interrupted: a signal or the time limit ended the run; its state is saved.
    """
    parser = Parser(prog="semiseg train", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--cfg", choices=("job",))
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("--config-name", default="train")
    options = parser.parse_intermixed_args(arguments)
    if options.multirun and (options.plan or options.cfg):
        raise UserError("--plan and --cfg are for single runs; leave -m out.")
    if options.resolve and not options.cfg:
        raise UserError("--resolve goes with --cfg job.")
    # Hydra and OmegaConf take a moment to import, and mistakes in the options are shown without them.
    from semiseg.config.check import Checker
    from semiseg.config.compose import Request, as_yaml
    from semiseg.config.multirun import sweep
    from semiseg.config.prepare import checked, settle
    from semiseg.config.resume import for_resume

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    request = Request(tuple(options.overrides), options.config_dir, options.config_name.removesuffix(".yaml"))
    if options.multirun:
        return sweep(request, _run)
    request = for_resume(request)
    if options.cfg:
        cfg = checked(request, Checker(), settings_only=True)
        print(as_yaml(cfg, options.resolve), end="")
        return 0
    cfg = settle(checked(request, Checker()))
    from semiseg import app as train

    train.run(cfg, list(options.overrides), plan_only=options.plan)
    return 0


def _run() -> Callable[..., float]:
    from semiseg import app as train

    return train.run
