"""The process that compares expressions: one JSON line in, one JSON line out. Run as a file, without the package.

It holds no state: its parent kills it when a comparison takes too long, and starts another.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import os
import re
import resource
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY_LIMIT_BYTES = 2 * 2**30
NUM_CACHED = 512
FOR_LIBRARY = re.compile(r"\\(?:i*nt|oint|lim|partial|det|prime)(?![a-zA-Z])|\\frac\s*\{\s*d")
LOADING, LOADED = "loading", "loaded"


def main() -> None:
    """Answer ``[request_id, text, other, time_limit_s]`` lines with ``[request_id, is_equivalent]``.

    If libraries must be loaded first, lines ``[request_id, "loading"]`` and ``[request_id, "loaded"]`` precede the
    answer. Ends when standard input closes. A parent that dies during a comparison cannot kill this process, so an
    alarm ends it a little after the limit.
    """
    with contextlib.suppress(ValueError, OSError):  # some systems know no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    if importlib.util.find_spec("math_verify") is None:
        raise SystemExit("math-verify is not installed")
    _stand_in_for_the_package()
    # output of a library must not be mistaken for a reply
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        import sgsd_lightning.verifiers.math.symbolic.equivalence  # noqa: F401  (its time belongs before "ready")

        print(json.dumps("ready"), file=replies, flush=True)
        for line in sys.stdin:
            request_id, text, other, time_limit_s = json.loads(line)

            def say(reply: object, request_id: int = request_id) -> None:
                print(json.dumps([request_id, reply]), file=replies, flush=True)

            say(is_equivalent(text, other, time_limit_s, say))
            signal.setitimer(signal.ITIMER_REAL, 0.0)


def _stand_in_for_the_package() -> None:
    """Make the modules beside this file importable without the package's own roots, which import torch."""
    folder = Path(__file__).resolve().parent
    for name, path in (
        ("sgsd_lightning", folder.parents[1]),
        ("sgsd_lightning.verifiers", folder.parent),
        ("sgsd_lightning.verifiers.math", folder),
    ):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package


def is_equivalent(text: str, other: str, time_limit_s: float, say: Callable[[object], None]) -> bool:
    """Whether two normalised texts are equivalent; False if neither grammar reads them."""
    from sgsd_lightning.verifiers.math.symbolic.equivalence import equivalent

    signal.setitimer(signal.ITIMER_REAL, time_limit_s + 1.0)
    trees = _parse(text), _parse(other)
    if None not in trees:
        with contextlib.suppress(RecursionError):
            return equivalent(*trees)
        return False
    if not (FOR_LIBRARY.search(text) or FOR_LIBRARY.search(other)):
        return False
    from sgsd_lightning.verifiers.math.symbolic import library

    signal.setitimer(signal.ITIMER_REAL, 0.0)
    say(LOADING)
    library.load()
    say(LOADED)
    signal.setitimer(signal.ITIMER_REAL, time_limit_s + 1.0)
    with contextlib.suppress(Exception):  # a parser of another's making raises what it likes
        return library.equivalent(text, other)
    return False


@functools.lru_cache(maxsize=NUM_CACHED)
def _parse(text: str) -> Any:
    from sgsd_lightning.verifiers.math.symbolic.atoms import parse
    from sgsd_lightning.verifiers.math.symbolic.tokens import NotRead

    try:
        return parse(text)
    except (NotRead, RecursionError):
        return None


if __name__ == "__main__":
    main()
