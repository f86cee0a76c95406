"""Checks of constructor arguments: one sentence that names the field, what it must be and what was found.

They lie beside the records because the records are their first users and every folder may import them. A condition says
what is right, never what is wrong (``x > 0``, not ``not x <= 0``), so that NaN, for which every comparison is false, is
refused too.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, get_args


def require(is_valid: bool, field: str, rule: str, found: object) -> None:
    """Refuse an argument that breaks its rule.

    Args:
        is_valid: whether it keeps the rule.
        field: its name in a configuration, such as ``sampling.sampling_top_p``.
        rule: what follows "must", such as ``be in (0, 1]``.
        found: its value.

    Raises:
        ValueError: "<field> must <rule>; got <found>".
    """
    if not is_valid:
        raise ValueError(f"{field} must {rule}; got {found!r}")


def require_at_least(minimum: int, field: str, found: object) -> None:
    """Refuse a count that is too small or no whole number.

    Raises:
        ValueError: as `require` does.
    """
    require(isinstance(found, Integral), field, "be a whole number", found)
    require(found >= minimum, field, f"be at least {minimum}", found)  # type: ignore[operator]


def require_choice(choices: Any, field: str, found: object) -> None:
    """Refuse a value that is none of a ``Literal``'s.

    Raises:
        ValueError: as `require` does.
    """
    names = get_args(choices)
    require(found in names, field, f"be one of {', '.join(names)}", found)
