"""`null` on the command line for a setting of a class inside another class."""

from __future__ import annotations

import functools
import json
from typing import Any

from jsonargparse import _typehints


def keep_nulls() -> None:
    """Let jsonargparse hand `null` on to a class inside a class as null, alone and in lists and dictionaries.

    For ``--model.prompts.system_text=null`` jsonargparse 4.53 reads the value as None, then builds the argument of the
    inner class by Python's ``str``: ``--prompts.system_text=None``. YAML reads that as the text "None". Here the value
    is spelt as YAML again before it is handed on. Called again, nothing changes.
    """
    original = _typehints.adapt_class_type
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def adapt_class_type(value: Any, *arguments: Any, **settings: Any) -> Any:
        specification = _typehints.subclass_spec_as_namespace(value)
        nested = specification.get("init_args")
        if isinstance(nested, _typehints.NestedArg):
            specification["init_args"] = nested._replace(val=spell_as_yaml(nested.val))
        return original(specification, *arguments, **settings)

    _typehints.adapt_class_type = adapt_class_type


def spell_as_yaml(value: Any) -> Any:
    """Spell None, lists and dictionaries as JSON, which YAML reads as the same value; leave everything else."""
    if value is not None and not isinstance(value, list | dict):
        return value
    try:
        return json.dumps(value)
    except TypeError:
        return value
