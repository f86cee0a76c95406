"""`sgsd report RUN [RUN ...]`: a page of what one run did, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from sgsd_lightning.cli.command_parser import CommandParser, require_folders


def main(arguments: Sequence[str]) -> None:
    """Read the runs and write the page.

    Raises:
        FileNotFoundError: for a folder that is not a run's.
        ImportError: without the extra ``report``.
    """
    parser = CommandParser(prog="sgsd report", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--out", type=Path, help="the page; default: report.html in the run's folder, or here for several"
    )
    parser.add_argument("--rollouts", type=int, default=24, help="rollouts of each run that can be read token by token")
    options = parser.parse_args(list(arguments))
    if options.rollouts < 0:
        raise ValueError(f"sgsd report: --rollouts must be 0 or more; got {options.rollouts}")
    require_folders(options.runs, "run folder")
    try:
        from sgsd_lightning.reports.page import write_page
    except ImportError as error:
        raise ImportError(f"sgsd report needs {error.name}: pip install 'sgsd-lightning[report]'") from None
    from sgsd_lightning.reports.run_logs import read_run

    names = run_names(options.runs)
    pairs = list(zip(options.runs, names, strict=True))
    runs = [read_run(folder, name, options.rollouts) for folder, name in track(pairs, "reading", transient=True)]
    for folder in options.runs:
        print(f"read {describe_run(folder)}")
    out = options.out or (options.runs[0] if len(runs) == 1 else Path()) / "report.html"
    for path in write_page(runs, out):
        print(f"wrote {path}")


def describe_run(folder: Path) -> str:
    """Return the run's folder and the checkpoint that its bank's evidence is read from.

    Warns where the checkpoint was written with other settings than the run's ``config.yaml`` has.
    """
    from sgsd_lightning.checkpoints.choice import LAST_FILENAME
    from sgsd_lightning.checkpoints.folders import recovered
    from sgsd_lightning.checkpoints.provenance import changed_settings, read_provenance
    from sgsd_lightning.cli.read_checkpoint import warn_of_changes
    from sgsd_lightning.cli.saved_config import CONFIG_FILE, saved_settings

    last = recovered(folder / "checkpoints" / LAST_FILENAME)
    if not last.exists():
        return f"{folder}: no checkpoint yet"
    checkpoint, settings = read_provenance(last), saved_settings(folder / CONFIG_FILE)
    # the file leaves out what follows from other settings
    shared = {name: value for name, value in checkpoint.settings.items() if name in settings}
    warn_of_changes(changed_settings(shared, settings), str(folder / CONFIG_FILE))
    return f"{folder}: {checkpoint}"


def run_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, and as many parts before it as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(of_folder[-length:]) for of_folder in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError("sgsd report: a run is named twice")
