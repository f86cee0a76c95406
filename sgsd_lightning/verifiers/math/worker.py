"""The process that compares expressions: one JSON line in, one JSON line out. Run as a file; imports math-verify alone.

It holds no state worth keeping: its parent kills it when a comparison takes too long, and starts another.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import resource
import signal
import sys
from typing import Any

MEMORY_LIMIT_BYTES = 2 * 2**30
NUM_CACHED = 512
RELATION = re.compile(r"[=<>,]|\\(?:le|ge|ne|in|cup|cap)(?![a-zA-Z])")


def main() -> None:
    """Answer ``[request_id, predicted, answer, time_limit_s]`` lines with ``[request_id, is_equivalent]``.

    Ends when standard input closes. A parent that dies during a comparison cannot kill this process, so an alarm ends
    it a little after the limit.
    """
    with contextlib.suppress(ValueError, OSError):  # some systems know no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    # what a library prints must not be taken for a reply
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        import math_verify  # noqa: F401  (its import time belongs before "ready")

        print(json.dumps("ready"), file=replies, flush=True)
        for line in sys.stdin:
            request_id, predicted, answer, time_limit_s = json.loads(line)
            signal.setitimer(signal.ITIMER_REAL, time_limit_s + 1.0)
            reply = is_equivalent(predicted, answer)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            print(json.dumps([request_id, reply]), file=replies, flush=True)


def is_equivalent(predicted: str, answer: str) -> bool:
    """math-verify's judgement, in either direction, without its own time limits, which need the main thread."""
    from math_verify import verify

    sides = _parsed(predicted), _parsed(answer)
    if not all(sides):
        return False
    # plain expressions are compared alike in both directions, at twice the time
    directions = (sides, sides[::-1]) if RELATION.search(predicted + answer) else (sides,)
    return any(bool(verify(gold, found, timeout_seconds=0, allow_set_relation_comp=True)) for gold, found in directions)


@functools.lru_cache(maxsize=NUM_CACHED)
def _parsed(text: str) -> list[Any]:
    """As LaTeX, whole: the fallbacks of math-verify would pick a number out of what they cannot read."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # units are split off before, with their names compared; here, the m of 2m would be taken for one
    spelling = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    targets = [LatexExtractionConfig(normalization_config=spelling, boxed_match_priority=-1)]
    settings = {"extraction_config": targets, "fallback_mode": "no_fallback", "parsing_timeout": 0}
    return list(parse(f"${text}$", **settings))


if __name__ == "__main__":
    main()
