"""Step 2: whether a policy loads, and whether packed attention gives the scores of padded attention."""

from __future__ import annotations

from benchmarks.first_contact.verdict import Found, Verdict

IF_BROKEN = "set policy.attention to sdpa and read the traceback; no GPU run begins without this"
LOGPROB_GAP = {"bfloat16": 0.3, "float32": 1e-4}
GRADIENT_GAP = {"bfloat16": 0.05, "float32": 1e-4}


def judge(found: Found) -> Verdict:
    if "logprob_gap" not in found:
        return Verdict("skipped", "Nothing was compared.")
    dtype, device = found["dtype"], found["device"]
    logprob, gradient = found["logprob_gap"], found["gradient_gap"]
    gaps = f"{logprob:.1e} nats in log-probabilities and {gradient:.1e} in the gradient on {device} in {dtype}"
    if not (logprob <= LOGPROB_GAP[dtype] and gradient <= GRADIENT_GAP[dtype]):
        return Verdict(
            "bad",
            f"Packed attention ({found['attention']}) is off by {gaps}: set policy.attention to sdpa until it is "
            "repaired.",
        )
    differs = [message for message in found.get("warnings", []) if "varlen_attn" in message]
    if differs:
        return Verdict(
            "act",
            f"A policy loads and its scores agree ({gaps}), but torch's kernels are not used ({differs[0]}): scoring "
            "is slower than it need be, so install flash-attn or repair `_varlen_kernels`.",
        )
    if device == "cuda" and not found["has_varlen_attn"]:
        return Verdict(
            "act",
            f"A policy loads and its scores agree ({gaps}), but this torch has no variable-length kernels with a "
            "window and a scale: install flash-attn or a later torch.",
        )
    return Verdict("good", f"A policy loads, and packed attention ({found['attention']}) agrees with padded: {gaps}.")
