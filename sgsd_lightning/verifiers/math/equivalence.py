"""Equality of answers: cheap exact rules first, then expressions in a process that can be killed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sgsd_lightning.verifiers.math.compound import is_compound, is_time_of_day, quantity, same_total
from sgsd_lightning.verifiers.math.damage import completes
from sgsd_lightning.verifiers.math.exact_numbers import exact_number
from sgsd_lightning.verifiers.math.labels import Label, split_label
from sgsd_lightning.verifiers.math.matching import order_counts, same_label
from sgsd_lightning.verifiers.math.normalization import (
    MAX_LENGTH,
    choice,
    choices,
    compact,
    has_words,
    is_same_text,
    normalize,
)
from sgsd_lightning.verifiers.math.process import MATH_PROCESS, TimeBudget
from sgsd_lightning.verifiers.math.sentences import only_expression
from sgsd_lightning.verifiers.math.structure import as_intersection, as_union, bracketed, elements
from sgsd_lightning.verifiers.math.units import counted_noun, split_unit

TIME_LIMIT_S = 5.0
MAX_LIST_LENGTH = 32
SETS = "{}"
CONDITIONAL = re.compile(r"\\mid(?![a-zA-Z])|^[^|]*(?<!\|)\|[^|]*$|:")
IN_RADIANS = re.compile(r"\\pi(?![a-zA-Z])|arc|\^\s*\{\s*-1\s*\}")
COMBINATIONS = re.compile(r"C\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)")
IN_BASE = re.compile(r"(\w+)_(?:\{(\d+)\}|(\d+))")


@dataclass(frozen=True, slots=True)
class Element:
    """One value of an answer, with its label and its unit."""

    text: str
    label: Label | None
    labelled: str
    """The value with its unit."""
    value: str
    unit: str | None


def math_equal(predicted: str, answer: str, time_limit_s: float = TIME_LIMIT_S) -> bool:
    """Whether a predicted answer has the value of the published one.

    Never hangs and never raises for any text, in any thread or process: a comparison that exceeds the limit is False.
    The letter of a multiple choice suffices where a side has nothing else; texts after both letters must agree too.
    Symmetric, except for published answers that lost letters (:mod:`sgsd_lightning.verifiers.math.damage`). A list
    without brackets is a set unless labels tell its values apart; labels and units count if both sides have them;
    ``50%`` equals 50 and 1/2, and ``90°`` equals 90 and pi/2.

    Args:
        predicted: as a completion spells it.
        answer: as the data set spells it.
        time_limit_s: time limit of the comparison of expressions, in seconds; the time spent waiting for other threads'
            comparisons is extra.

    Raises:
        RuntimeError: if math-verify is not installed.
    """
    predicted, answer = predicted.strip(), answer.strip()
    if predicted == answer:
        return bool(predicted)
    if max(len(predicted), len(answer)) > MAX_LENGTH:
        return False
    numbers = exact_number(predicted), exact_number(answer)
    if None not in numbers:
        return numbers[0] == numbers[1]
    budget = TimeBudget(time_limit_s)
    (letter, rest), (other_letter, other_rest) = choice(predicted), choice(answer)
    if letter and other_letter and (letter != other_letter or not (rest and other_rest)):
        return letter == other_letter
    several = choices(predicted), choices(answer)
    if several[0] and several[1]:
        return several[0] == several[1]
    contents = rest if letter and rest else predicted, other_rest if other_letter and other_rest else answer
    texts = normalize(contents[0]), normalize(contents[1])
    readings = _readings(texts[0], texts[1]), _readings(texts[1], texts[0])
    if any(_equal(one, other, budget) for one in readings[0] for other in readings[1]):
        return True
    expressions = only_expression(predicted), only_expression(answer)
    if any(expressions):
        return _equal(normalize(expressions[0] or predicted), normalize(expressions[1] or answer), budget)
    return completes(compact(split_label(normalize(predicted))[1]), compact(split_label(normalize(answer))[1]))


def _readings(text: str, other: str) -> list[str]:
    """Return the readings of a text: ``100,200,300`` is a list and a number, ``C(5,2)`` a point or a number."""
    if (match := COMBINATIONS.fullmatch(text)) and exact_number(other) is not None:
        return [rf"\binom{{{match[1]}}}{{{match[2]}}}"]
    is_both = "," in text and exact_number(text) is not None
    return [text, text.replace(",", "")] if is_both else [text]


def _equal(predicted: str, answer: str, budget: TimeBudget) -> bool:
    if not predicted or not answer:
        return False
    if is_same_text(predicted, answer):
        return True
    if is_time_of_day(predicted) or is_time_of_day(answer):
        return False
    quantities = quantity(predicted), quantity(answer)
    if None not in quantities and quantities[0] == quantities[1]:
        return True
    lists = elements(predicted), elements(answer)
    if not all(lists):
        return False
    if len(lists[0]) == len(lists[1]) == 1:
        return _equal_elements(_element(lists[0][0]), _element(lists[1][0]), budget)
    return _equal_lists(lists[0], lists[1], budget)


def _element(text: str, is_counted: bool = False) -> Element:
    label, labelled = split_label(text)
    value, unit = split_unit(labelled)
    if is_counted and label is None and (noun := counted_noun(labelled)):
        label = Label("noun", noun)
    return Element(text, label, labelled, value.strip(), unit)


def _equal_elements(predicted: Element, answer: Element, budget: TimeBudget) -> bool:
    """Whether the values are equal, and the labels and units where both sides have one."""
    if not same_label(predicted.label, answer.label):
        return _are_relations(predicted, answer) and _judge_expressions(predicted.text, answer.text, budget)
    if is_same_text(predicted.labelled, answer.labelled):
        return True
    if _equal_quantities(predicted, answer, budget):
        return True
    return _are_relations(predicted, answer) and _judge_expressions(predicted.text, answer.text, budget)


def _are_relations(predicted: Element, answer: Element) -> bool:
    return "=" in predicted.text and "=" in answer.text


def _equal_quantities(predicted: Element, answer: Element, budget: TimeBudget) -> bool:
    if is_compound(predicted.labelled) or is_compound(answer.labelled):
        return same_total(quantity(predicted.labelled), quantity(answer.labelled))
    units = predicted.unit, answer.unit
    if "percent" in units and units[0] != units[1] and None in units:
        percent, other = (predicted, answer) if predicted.unit == "percent" else (answer, predicted)
        numbers = exact_number(percent.value), exact_number(other.value)
        if numbers[0] is not None and numbers[1] is not None and numbers[0] == 100 * numbers[1]:
            return True
    if "degree" in units and units[0] != units[1] and units[0] in (None, "degree", "radian"):
        degrees, other = (predicted, answer) if predicted.unit == "degree" else (answer, predicted)
        if other.unit in (None, "radian") and (other.unit or IN_RADIANS.search(other.value)):
            return _judge_expressions(rf"({degrees.value}) \cdot \pi / 180", other.value, budget)
    if None not in units and units[0] != units[1]:
        return False
    return _equal_values(predicted.value, answer.value, budget)


def _equal_values(predicted: str, answer: str, budget: TimeBudget) -> bool:
    if is_same_text(predicted, answer):
        return True
    numbers = exact_number(predicted), exact_number(answer)
    if None not in numbers:
        return numbers[0] == numbers[1]
    bases = IN_BASE.fullmatch(predicted), IN_BASE.fullmatch(answer)
    if any(bases):
        # a base on one side only: 101_2 is not 101, and 5 is not the digits that were asked for
        return False
    brackets = _list_in_brackets(predicted), _list_in_brackets(answer)
    if brackets[0] and brackets[1] and max(len(brackets[0][1]), len(brackets[1][1])) > 1:
        if brackets[0][0] != brackets[1][0]:
            return False
        return _equal_parts(brackets[0][1], brackets[1][1], brackets[0][0] != SETS, budget)
    single = [kind[1][0] if kind and kind[0] == SETS and len(kind[1]) == 1 else None for kind in brackets]
    if any(single):
        return _equal(single[0] or predicted, single[1] or answer, budget)
    return _judge_expressions(predicted, answer, budget)


def _list_in_brackets(text: str) -> tuple[str, list[str]] | None:
    """Do as :func:`bracketed`, but return None for a set that is given by a condition."""
    kind = bracketed(text)
    return None if kind is None or (kind[0] == SETS and CONDITIONAL.search(kind[1][0])) else kind


def _equal_lists(predicted: list[str], answer: list[str], budget: TimeBudget) -> bool:
    """Compare lists without brackets; one side may be a tuple or a set."""
    (predicted, is_tuple), (answer, is_other_tuple) = (
        _open_brackets(predicted, answer),
        _open_brackets(answer, predicted),
    )
    if len(predicted) != len(answer):
        return _equal_as_sets(predicted, answer, budget)
    labels = [[_element(part, is_counted=True).label for part in side] for side in (predicted, answer)]
    is_said = any(side[-1].rstrip(" .").endswith("respectively") for side in (predicted, answer))
    is_ordered = is_tuple or is_other_tuple or is_said or order_counts(*labels)
    if _equal_parts(predicted, answer, is_ordered, budget):
        return True
    return _equal_as_sets(predicted, answer, budget)


def _equal_as_sets(predicted: list[str], answer: list[str], budget: TimeBudget) -> bool:
    """Compare lists of relations as the union or, failing that, the intersection of their solutions."""
    if not all(len(side) == 1 or as_union(side) or as_intersection(side) for side in (predicted, answer)):
        return False
    for as_set in (as_union, as_intersection):
        sets = [as_set(side) if len(side) > 1 else side[0] for side in (predicted, answer)]
        if sets[0] and sets[1] and _judge_expressions(sets[0], sets[1], budget):
            return True
    return False


def _open_brackets(parts: list[str], other: list[str]) -> tuple[list[str], bool]:
    """Open a lone tuple or set if the other side is a bare list; return the elements and whether order counts."""
    if len(parts) > 1 or len(other) == 1:
        return parts, False
    kind = bracketed(split_label(parts[0])[1])
    if kind is not None and kind[0] == SETS and len(kind[1]) == 1:
        kind = bracketed(kind[1][0])
    if kind is not None and kind[0] in ("()", SETS) and len(kind[1]) == len(other):
        return kind[1], kind[0] == "()"
    return parts, False


def _equal_parts(predicted: list[str], answer: list[str], is_ordered: bool, budget: TimeBudget) -> bool:
    if len(predicted) != len(answer) or len(answer) > MAX_LIST_LENGTH:
        return False
    remaining = list(answer)
    for part in predicted:
        candidates = remaining[:1] if is_ordered else sorted(remaining, key=lambda other: other != part)
        match = next((other for other in candidates if _equal_parted(part, other, budget)), None)
        if match is None:
            return False
        remaining.remove(match)
    return True


def _equal_parted(part: str, other: str, budget: TimeBudget) -> bool:
    return _equal_elements(_element(part, is_counted=True), _element(other, is_counted=True), budget)


def _judge_expressions(predicted: str, answer: str, budget: TimeBudget) -> bool:
    if has_words(predicted) or has_words(answer) or not (predicted and answer):
        return False
    return MATH_PROCESS.is_equivalent(predicted, answer, budget)
