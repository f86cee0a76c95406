"""Triton's interpreter at twice its speed, without the work that it does again at each call of a device function.

Before it calls a device function the interpreter replaces the functions of `triton.language` that the function sees, by
walking all their members; inside one launch the first walk has replaced them already. That is half of the time that our
kernels take. The functions here are private to Triton: where they are not what they were, nothing is changed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def patched_once_per_launch() -> Iterator[bool]:
    """A region in which a launch replaces each module of the language once; yields whether that could be arranged."""
    try:
        from triton.runtime import interpreter

        patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
        scope = interpreter._LangPatchScope
    except (ImportError, AttributeError):
        yield False
        return
    seen: set[frozenset[str]] = set()

    @functools.wraps(patch)
    def patch_once(function: Any) -> Any:
        modules = _language_modules(function)
        if modules in seen:
            return scope()
        seen.add(modules)
        return patch(function)

    @functools.wraps(launch)
    def launch_afresh(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.clear()
        try:
            return launch(self, *arguments, **options)
        finally:
            seen.clear()

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch_once, launch_afresh
    try:
        yield True
    finally:
        interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch, launch


@functools.cache
def _language_modules(function: Any) -> frozenset[str]:
    """The modules of the language that a device function sees, of those that the interpreter replaces."""
    names = (value.__name__ for value in function.__globals__.values() if inspect.ismodule(value))
    return frozenset(names) & {"triton.language", "triton.language.core"}
