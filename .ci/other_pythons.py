"""Run `stdlib_smoke.py` under every other supported Python that this machine has.

The packages themselves are not installed for them here: PyPI's torch brings 3 GB of CUDA for any Python but the local
CPU wheel's. `make smoke VENV=.venv-3.13 PYTHON=python3.13` does install them, and imports every module.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pythons import VERSIONS, interpreter


def main() -> int:
    """Run it for each; the process's exit status."""
    smoke = Path(__file__).with_name("stdlib_smoke.py")
    status = 0
    for version in VERSIONS:
        python = interpreter(version)
        if python is None:
            print(f"Python {version}: not on this machine", flush=True)
            continue
        command = [python, "-I", "-B", str(smoke), ",".join(sorted(sys.stdlib_module_names))]
        status |= subprocess.run(command, check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
