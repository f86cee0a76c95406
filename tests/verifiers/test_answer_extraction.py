"""What is taken for a completion's answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.verifiers import extract_answer
from sgsd_lightning.verifiers.math.boxes import PLACEHOLDER


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"First \boxed{1}, so \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed {7}", "7"),
        (r"so \boxed 5.", "5"),
        (r"so \boxed -3", "-3"),
        (r"\fbox{12}", "12"),
        (r"\boxed{5} and then \boxed{6", None),
        (r"\boxed{3 and then \boxed{4}", "4"),
        (r"\boxed{5}. Put it in \boxed{}.", "5"),
        (r"\begin{pmatrix} \boxed{1 \\ 2} \end{pmatrix}", r"1 \\ 2"),
        ("<answer>1</answer> <answer> 2 </answer>", "2"),
        ("<Answer>\n(1, 2)\n</Answer>", "(1, 2)"),
        ("<answer>1</answer> no, <answer>2", None),
        (r"The roots are $\boxed{2}$ and $\boxed{-3}$.", "2, -3"),
        (r"Either $\boxed{2}$ or $\boxed{-3}$.", "2, -3"),
        (r"(a) \boxed{5} So for part (b) we get \boxed{7}.", "5, 7"),
        (r"It is \boxed{\frac12}, that is \boxed{\dfrac{1}{2}}.", r"\dfrac{1}{2}"),
        (r"\boxed{x = 5} or rather \boxed{5}", "5"),
        (r"It is \boxed{4}. Wait, no: \boxed{5}.", "5"),
        (r"The answer is \boxed{12}. I used \boxed as asked.", "12"),
        (r"It is \boxed{12}, given as \boxed{answer}.", "12"),
        (r"Write \boxed{your answer} at the end.", None),
        (r"\boxed{\text{answer}}", None),
        (r"\boxed{\frac{1}{\boxed{2}}}", r"\frac{1}{{2}}"),
        (r"<think> perhaps \boxed{5}, let me check", None),
        (r"\boxed{4} <think> or \boxed{5}? let me check", "4"),
        (r"<think> \boxed{5}? no. </think> The answer is 7.", "7"),
        (r"<think> \boxed{5}? no. </think> So it is something else.", None),
        (r"<think> It is \boxed{5}. </think>", "5"),
        (r"perhaps \boxed{5} </think> \boxed{6}", "6"),
        (r"<think>\boxed{1}</think> \boxed{2} <think> \boxed{3}", "2"),
        ("<think> a </think> <answer>8</answer>", "8"),
        ("**Final Answer**\n\\[ 42 \\]", "42"),
        ("## Answer\n\n$x = 4$", "$x = 4$"),
        ("The final answer is:\n$$\n\\frac{1}{2}\n$$", r"\frac{1}{2}"),
        ("The answer is 3.\nNo. The final answer is", None),
        ("so 42 apples\n#### 42", "42"),
        ("#### Step 2\nThe answer is 5", "5"),
        ("Answer: 3\n#### 4", "4"),
        ("I gave my answer\nabove", None),
        ("Answer: 4", "4"),
        ("**Final Answer:** $x = 4$.", "$x = 4$"),
        ("The answer is 3.\nWait. The answer is 4.", "4"),
        ("Therefore, the final answer is 12. This ends it.", "12"),
        ("Answer: 2.5", "2.5"),
        ("### Answer:\n", None),
        (r"\boxedfoo", None),
        ("<think> a </think>\n\n7", "7"),
        ("<think> a </think>\n\n**7**.", "7"),
        ("<think> a </think>\n\nFinal: **7**", "7"),
        (r"<think> a </think> It is \boxed{7", None),
        (r"First we get \boxed{5}. Next, adding 2: \boxed{7}", "7"),
        ("Answer\n=====\n42", "42"),
        (r"The answer is $42$ because $6\cdot 7=42$.", "$42$"),
        ("The answer is 42, since 6 times 7 is 42.", "42"),
        (r"<|begin_of_thought|> \boxed{5} <|end_of_thought|> The answer is 6", "6"),
        (r"[THINK]\boxed{5}[/THINK] The answer is 6", "6"),
        (r"◁think▷\boxed{5}◁/think▷ The answer is 6.", "6"),
        (r"<|begin_of_thought|> \boxed{5}, let me check", None),
        ("no answer here", None),
        ("", None),
    ],
)
def test_last_complete_answer_is_found(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


def test_a_box_goes_before_a_tag_and_a_tag_before_a_line() -> None:
    box, tag, line = r"\boxed{1}", "<answer>2</answer>", "Answer: 3"
    assert extract_answer(f"{box}\n{tag}\n{line}") == "1"
    assert extract_answer(f"{tag}\n{line}") == "2"
    assert extract_answer(f"{line}\n") == "3"


balanced = st.recursive(
    st.text(st.characters(exclude_characters="{}\\", exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner.map(lambda text: "{" + text + "}") | inner, max_size=3).map("".join),
    max_leaves=12,
)


@given(before=st.text(max_size=30), content=balanced, after=st.text(max_size=30).filter(lambda text: "\\" not in text))
def test_what_was_boxed_is_found_whatever_surrounds_it(before: str, content: str, after: str) -> None:
    if not content.strip() or PLACEHOLDER.fullmatch(content.strip()):
        content = "0"
    # an odd backslash before would make the box's own backslash a character
    before = before.rstrip("\\")
    assert extract_answer(before + r"\boxed{" + content + "}" + after) == content.strip()


PIECES = [
    "<think>",
    "</think>",
    "#### 1",
    *"{}\\ab<>/:*. \n",
    r"\boxed",
    "<answer>",
    "</answer>",
    "answer is",
    "Answer:",
]


@given(st.lists(st.sampled_from(PIECES)), st.text())
def test_no_text_raises(pieces: list[str], ending: str) -> None:
    text = "".join(pieces) + ending
    answer = extract_answer(text)
    assert answer is None or (answer and all(part.strip() in text for part in answer.split(", ")))


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "}",
        r"\boxed{",
        r"\boxed ",
        "<answer>",
        "</answer>",
        "answer: ",
        "answer is ",
        "Answer: a. ",
        "\\",
        "final ",
        "<think>",
        "</think>",
        "#### 1\n",
        "answer\n",
        r"\boxed{1}",
        r"\boxed{1} so ",
        "#### a\n",
    ],
)
def test_time_is_linear_in_hostile_text(piece: str) -> None:
    text = piece * 100_000 + (r" \boxed{" if "boxed" in piece else "")
    started = time.perf_counter()
    extract_answer(text)
    assert time.perf_counter() - started < 5, "a quadratic scan of this text takes minutes"


@pytest.mark.parametrize("text", ["answer:" + " " * 10**6, r"\boxed" + " " * 10**6, "answer" + " " * 10**6 + "is"])
def test_long_runs_of_spaces_are_read_once(text: str) -> None:
    started = time.perf_counter()
    assert extract_answer(text) is None
    assert time.perf_counter() - started < 3
