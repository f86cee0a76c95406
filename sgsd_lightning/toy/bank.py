"""The toy skill bank, a JSON file beside this module, and what each of its items does to the base model."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

BANK_FILE = "toy_bank.json"


def toy_bank_path() -> Path:
    """Where the toy bank lies, in the schema of every skill bank."""
    return Path(str(resources.files("sgsd_lightning.toy").joinpath(BANK_FILE)))


def load_toy_bank() -> dict[str, Any]:
    """The bank's JSON. Beside the schema's fields every item says what it is, for reports and for the base model:
    ``toy_truth`` (``helpful``, ``irrelevant`` or ``misleading``) and ``toy_subject`` (``precedence``, ``minus``
    or ``none``: the convention that it speaks of).
    """
    bank: dict[str, Any] = json.loads(toy_bank_path().read_text(encoding="utf-8"))
    return bank
