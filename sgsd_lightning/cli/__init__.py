"""The command `sgsd`."""

from __future__ import annotations

import os
import signal
import sys

from sgsd_lightning.cli.errors import INPUT_ERRORS, message_to_user, process_label
from sgsd_lightning.shown_text import printable

USAGE = """usage: sgsd COMMAND [options]

commands that read a configuration (--config NAME_OR_FILE, more laid over it: --config scale/ddp,
--config method/grpo, then overrides:
--model.init_args.rollouts.init_args.group_size=4):
  fit            train                                   --ckpt_path last resumes
  validate       avg@k and pass@k on the validation problems
  test           the same on the test problems           --ckpt_path best: of the run's best checkpoint
  evaluate       many samples of each problem, kept, with intervals   --problems FILE,FILE --samples 12 --out FOLDER
  predict        sample completions of the test problems
  audit-prompts  show what student, teachers and evaluation read, and warn of misalignment
  export         write the policy as a Hugging Face folder   --folder OUT --ckpt_path CHECKPOINT

others:
  demo           build the toy world, train, evaluate, and draw what happened   --out FOLDER
  configs        list the shipped configurations
  compare        two evaluations of the same problems, paired   OUT_1 OUT_2
  study          the paper's table at toy scale: methods, ablations, sweeps   toy --out FOLDER
  report         a page of what runs did: curves, teachers token by token, the bank's evidence   RUN [RUN ...]
  plan           what a run needs of a GPU's memory, and why   --config NAME_OR_FILE
  skills         write a bank from experience, look into one, audit one   (sgsd skills --help)

A run that is stopped (SIGTERM, SIGUSR1, Ctrl-C) finishes its optimizer step, saves, and ends with 128 + the
signal's number; an error in the input ends with 2, a run that cannot continue with 1.

`sgsd COMMAND --help` explains a command. SGSD_TRACEBACK=1 shows where an error came from.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the process's exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    try:
        _dispatch(arguments[0], arguments[1:])
    except KeyboardInterrupt:
        print(f"{process_label()}: interrupted", file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
    except Exception as error:
        message = message_to_user(error)
        if message is None or os.environ.get("SGSD_TRACEBACK"):
            raise
        print(f"{process_label()}: error: {printable(message)}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, INPUT_ERRORS) else 1
    return 0


def _dispatch(command: str, rest: list[str]) -> None:
    if command == "demo":
        from sgsd_lightning.cli.demo import main as run_demo

        run_demo(rest)
    elif command == "skills":
        from sgsd_lightning.cli.skills import main as run_skills

        run_skills(rest)
    elif command == "study":
        from sgsd_lightning.cli.study import main as run_study

        run_study(rest)
    elif command == "compare":
        from sgsd_lightning.cli.compare import main as compare

        compare(rest)
    elif command == "report":
        from sgsd_lightning.cli.report import main as report

        report(rest)
    elif command == "plan":
        from sgsd_lightning.cli.plan import main as print_plan

        print_plan(rest)
    elif command == "configs":
        from sgsd_lightning.cli.configs import LAYERED, all_configs

        for name, path in all_configs().items():
            print(f"{name:32s} {path}")
        for name, parts in LAYERED.items():
            print(f"{name:32s} {' + '.join(parts)}")
    else:
        from sgsd_lightning.cli.configs import resolve_config_arguments

        resolved = resolve_config_arguments(rest)  # a misspelt name is refused before Lightning's seconds of imports
        from sgsd_lightning.cli.lightning_cli import run
        from sgsd_lightning.cli.terminal import announce_choices, silence_known_warnings

        announce_choices()
        silence_known_warnings()
        run([command.replace("-", "_"), *resolved])
