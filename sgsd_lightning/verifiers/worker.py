"""The process that compares expressions: one JSON line in, one JSON line out. Run as a file; imports math-verify alone.

It holds no state worth keeping: its parent kills it when a comparison takes too long, and starts another.
"""

from __future__ import annotations

import json
import logging
import resource
import sys

MEMORY_LIMIT_BYTES = 4 * 2**30


def main() -> None:
    """Answer ``[predicted, answer]`` lines with ``true`` or ``false`` until standard input closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    logging.disable(logging.CRITICAL)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        predicted, answer = json.loads(line)
        print(json.dumps(is_equivalent(predicted, answer)), flush=True)


def is_equivalent(predicted: str, answer: str) -> bool:
    """math-verify's judgement, without its own time limits, which need the main thread's signals."""
    from math_verify import parse, verify

    gold, found = (parse(f"${text}$", parsing_timeout=0) for text in (answer, predicted))
    return bool(gold and found) and bool(verify(gold, found, timeout_seconds=0, allow_set_relation_comp=True))


if __name__ == "__main__":
    main()
