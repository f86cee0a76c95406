"""`python -m sgsd_lightning`, for launchers that start modules, such as torchrun."""

import sys

from sgsd_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
