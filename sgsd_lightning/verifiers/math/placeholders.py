"""Published answers that say that there is none: what sets of problems write for proofs and for what was not found."""

from __future__ import annotations

import re

WRAPPED = re.compile(
    r"(?:\\(?:text|mathrm|textbf|textit|boxed|fbox)\s*)?[{(\[<](.*)[})\]>]|\$+(.*?)\$+|([\"'`*_]+)(.*)\3"
)
EXACT = frozenset({"None", "none", "NONE", "NA", "Infinity", "-Infinity", "+Infinity", "inf", "-inf", "+inf"})
"""As Python, JavaScript and tables write nothing and what is no number. Within ``\\text`` they may be meant."""
PLACEHOLDER = re.compile(
    r"nan|null|n\s?/\s?a|n\.a\.?|unknown|unspecified|unavailable|unanswered|undetermined|missing|omitted|tbd|tba|to-?do|"
    r"placeholder|empty|blank|answer|final answer|solution|result|q\.?\s?e\.?\s?d|open[\s-]ended|error|"
    r"(?:answer\s+|was\s+)?not[\s_-]?(?:found|available|applicable|provided|given|specified|known|extracted)|"
    r"(?:answer|solution|proof)\s+(?:not\s+\w+|omitted|missing|unknown|above|below|follows)|"
    r"no[\s_-]?(?:answer|final answer)(?:\s+(?:found|given|provided|available|needed|required))?|"
    r"(?:(?:see|refer to|as in|in|given in|shown in|look at|cf\.?)\s+)(?:the\s+|above\s+|full\s+|attached\s+)*"
    r"(?:proofs?|solutions?|explanations?|above|below|text|figure|image|picture|diagram|reference|answers?|paper)"
    r"(?:\s+(?:above|below))?|"
    r"(?:(?:the|a|full|complete|this is a|by|is a)\s+)*proof"
    r"(?:\s+(?:is\s+)?(?:omitted|required|question|problem|needed))?|"
    r"prove(?:d|n)?(?:\s+(?:it|that|this))?|"
    r"(?:(?:it|this|that|the\s+\w+)\s+)?(?:(?:is|was|has\s+been|have\s+been)\s+)?(?:now\s+)?(?:proved|proven|shown)|"
    r"(?:\\(?:[lcvd]?dots[bcimo]?|(?:black)?square|box|qed|qedsymbol)(?![a-z])|[…⋯■□▪∎◻◼]|\s)+",
    re.IGNORECASE,
)


def is_placeholder(answer: str) -> bool:
    """Whether an answer stands for none, such as ``proof``, ``notfound``, ``N/A``, ``NaN`` or ``see solution``."""
    text = answer.strip().rstrip(".!:;").strip()
    if text in EXACT:
        return True
    while (match := WRAPPED.fullmatch(text)) is not None:
        text = next(group for group in (match[1], match[2], match[4]) if group is not None).strip().rstrip(".!").strip()
    return PLACEHOLDER.fullmatch(text) is not None
