"""Step 8: whether cuDNN's attention is slow at new shapes or wrong, as others report."""

from __future__ import annotations

from benchmarks.first_contact.verdict import Found, Verdict

IF_BROKEN = "keep cuDNN's attention off: torch.backends.cuda.enable_cudnn_sdp(False)"
MANY_TIMES = 3.0
OFF = "keep cuDNN's attention off where we call attention"


def judge(found: Found) -> Verdict:
    if found.get("cudnn_gradient") == "not finite":
        return Verdict(
            "bad", f"cuDNN's gradient under a mask is not finite (pytorch #196678): {OFF}, whatever it gains."
        )
    rows = found.get("rows", [])
    on = [row for row in rows if row["cudnn"]]
    off = {row["mask"]: row for row in rows if not row["cudnn"]}
    both = [(row, off[row["mask"]]) for row in on if row["mask"] in off]
    if not both:
        return Verdict("skipped", "cuDNN's attention was not compared with the others.")
    row, other = max(both, key=lambda pair: pair[0]["new_shape_ms"] / pair[0]["seen_shape_ms"])
    times = (
        f"a new shape takes {row['new_shape_ms']:.3g} ms and a seen one {row['seen_shape_ms']:.3g} with cuDNN, "
        f"{other['new_shape_ms']:.3g} and {other['seen_shape_ms']:.3g} without"
    )
    if row["new_shape_ms"] > MANY_TIMES * row["seen_shape_ms"]:
        return Verdict(
            "act", f"cuDNN builds a plan per shape ({times}), and scoring and decoding make new ones: {OFF}."
        )
    if row["seen_shape_ms"] < other["seen_shape_ms"] and row["new_shape_ms"] < other["new_shape_ms"]:
        return Verdict(
            "act", f"cuDNN is faster ({times}) and its gradients are finite here: its setting may be turned on."
        )
    return Verdict("good", f"cuDNN costs no plan per shape worth speaking of ({times}): leave it off, nothing is lost.")
