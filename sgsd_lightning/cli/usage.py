"""What `sgsd --help` prints, and the commands that there are."""

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
  help           the parts of a run, their classes and arguments   [PART] [CLASS]

A run that is stopped (SIGTERM, SIGUSR1, Ctrl-C) finishes its optimizer step, saves, and ends with 128 + the
signal's number; an error in the input ends with 2, a run that cannot continue with 1.

`sgsd COMMAND --help` explains a command, `sgsd --version` says which edition this is.
SGSD_TRACEBACK=1 shows where an error came from.
"""
RUN_COMMANDS = ("fit", "validate", "test", "evaluate", "predict", "audit-prompts", "export")
"""Those that read a configuration."""
OTHER_COMMANDS = {
    "demo": "sgsd_lightning.cli.demo",
    "configs": "sgsd_lightning.cli.configs",
    "compare": "sgsd_lightning.cli.compare",
    "study": "sgsd_lightning.cli.study",
    "report": "sgsd_lightning.cli.report",
    "plan": "sgsd_lightning.cli.plan",
    "skills": "sgsd_lightning.cli.skills",
    "help": "sgsd_lightning.cli.help",
}
"""The module of each other command; its ``main`` takes the arguments."""
