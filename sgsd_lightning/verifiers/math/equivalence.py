"""Whether two spellings are one answer: cheap exact rules first, math-verify in a process that can be killed after."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sgsd_lightning.verifiers.math.damage import completes
from sgsd_lightning.verifiers.math.exact_numbers import exact_number
from sgsd_lightning.verifiers.math.normalization import MAX_LENGTH, choice, compact, has_words, is_same_text, normalize
from sgsd_lightning.verifiers.math.process import JUDGE, TimeBudget
from sgsd_lightning.verifiers.math.structure import as_union, bracketed, only_expression, split_list, split_name
from sgsd_lightning.verifiers.math.units import split_unit

TIME_LIMIT_S = 5.0
MAX_LIST_LENGTH = 32
SETS = "{}"
IN_BASE = re.compile(r"(\w+)_(?:\{(\d+)\}|(\d+))")


@dataclass(frozen=True, slots=True)
class Element:
    """One value of an answer, with the name before it and the unit after it."""

    text: str
    name: str | None
    named_value: str
    value: str
    unit: str | None


def math_equal(predicted: str, answer: str, time_limit_s: float = TIME_LIMIT_S) -> bool:
    """Whether a predicted answer has the value of the published one.

    Never hangs and raises for no text, from any thread or process: what takes longer than the limit is not equal.
    Symmetric, but for published answers that lost letters (:mod:`sgsd_lightning.verifiers.math.damage`). A list without
    brackets is a set; names and units count where both sides have them; ``50%`` is 50 and is 1/2.

    Args:
        predicted: as a completion spells it.
        answer: as the data set spells it.
        time_limit_s: the longest that the comparison of expressions may take, in seconds. Threads that wait for
            another's comparison wait longer.

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
    if letter and other_letter:
        return letter == other_letter
    contents = rest if letter and rest else predicted, other_rest if other_letter and other_rest else answer
    if _equal(normalize(contents[0]), normalize(contents[1]), budget):
        return True
    expressions = only_expression(predicted), only_expression(answer)
    if any(expressions):
        return _equal(normalize(expressions[0] or predicted), normalize(expressions[1] or answer), budget)
    return completes(compact(split_name(normalize(predicted))[1]), compact(split_name(normalize(answer))[1]))


def _equal(predicted: str, answer: str, budget: TimeBudget) -> bool:
    if not predicted or not answer:
        return False
    if is_same_text(predicted, answer):
        return True
    lists = split_list(predicted), split_list(answer)
    if len(lists[0]) == len(lists[1]) == 1:
        return _equal_elements(_element(lists[0][0]), _element(lists[1][0]), budget)
    return _equal_lists(_without_brackets(lists[0], lists[1]), _without_brackets(lists[1], lists[0]), budget)


def _element(text: str) -> Element:
    name, named_value = split_name(text)
    value, unit = split_unit(named_value)
    return Element(text, name, named_value, value.strip(), unit)


def _equal_elements(predicted: Element, answer: Element, budget: TimeBudget) -> bool:
    """Values equal, and so the names and units, where both have one."""
    if not _agree(predicted.name, answer.name):
        return _are_equations(predicted, answer) and _judge(predicted.text, answer.text, budget)
    if is_same_text(predicted.named_value, answer.named_value):
        return True
    if not _agree(predicted.unit, answer.unit):
        return False
    if _equal_values(predicted.value, answer.value, budget):
        return True
    if "percent" in (predicted.unit, answer.unit) and predicted.unit != answer.unit:
        percent, other = (predicted, answer) if predicted.unit == "percent" else (answer, predicted)
        numbers = exact_number(percent.value), exact_number(other.value)
        return numbers[0] is not None and numbers[1] is not None and numbers[0] == 100 * numbers[1]
    return _are_equations(predicted, answer) and _judge(predicted.text, answer.text, budget)


def _agree(name: str | None, other: str | None) -> bool:
    return name is None or other is None or name == other


def _are_equations(predicted: Element, answer: Element) -> bool:
    return "=" in predicted.text and "=" in answer.text


def _equal_values(predicted: str, answer: str, budget: TimeBudget) -> bool:
    if is_same_text(predicted, answer):
        return True
    numbers = exact_number(predicted), exact_number(answer)
    if None not in numbers:
        return numbers[0] == numbers[1]
    bases = IN_BASE.fullmatch(predicted), IN_BASE.fullmatch(answer)
    if any(bases):
        return not all(bases) and (bases[0] or bases[1])[1] in (predicted, answer)  # type: ignore[index]
    brackets = bracketed(predicted), bracketed(answer)
    if brackets[0] and brackets[1] and max(len(brackets[0][1]), len(brackets[1][1])) > 1:
        if brackets[0][0] != brackets[1][0]:
            return False
        return _equal_parts(brackets[0][1], brackets[1][1], brackets[0][0] != SETS, budget)
    single = [kind[1][0] if kind and kind[0] == SETS and len(kind[1]) == 1 else None for kind in brackets]
    if any(single):
        return _equal(single[0] or predicted, single[1] or answer, budget)
    return _judge(predicted, answer, budget)


def _without_brackets(parts: list[str], other: list[str]) -> list[str]:
    """The elements of a lone tuple or set, where the other side lists its elements without brackets."""
    if len(parts) > 1 or len(other) == 1:
        return parts
    kind = bracketed(split_name(parts[0])[1])
    if kind is not None and kind[0] in ("()", SETS):
        return kind[1] if len(kind[1]) == len(other) else parts
    return parts


def _equal_lists(predicted: list[str], answer: list[str], budget: TimeBudget) -> bool:
    """Lists without brackets: by name, by position where names tell the values apart on one side, or as sets."""
    if len(predicted) != len(answer):
        unions = as_union(predicted), as_union(answer)
        return any(unions) and _judge(unions[0] or ", ".join(predicted), unions[1] or ", ".join(answer), budget)
    names = [[split_name(part)[0] for part in side] for side in (predicted, answer)]
    return _equal_parts(predicted, answer, _is_ordered(*names), budget)


def _is_ordered(names: list[str | None], other_names: list[str | None]) -> bool:
    kinds, other_kinds = set(names) - {None}, set(other_names) - {None}
    is_matched_by_name = None not in names and None not in other_names and len(kinds) == len(names)
    return max(len(kinds), len(other_kinds)) > 1 and not (is_matched_by_name and kinds == other_kinds)


def _equal_parts(predicted: list[str], answer: list[str], is_ordered: bool, budget: TimeBudget) -> bool:
    if len(predicted) != len(answer) or len(answer) > MAX_LIST_LENGTH:
        return False
    remaining = list(answer)
    for part in predicted:
        candidates = remaining[:1] if is_ordered else sorted(remaining, key=lambda other: other != part)
        match = next((other for other in candidates if _equal_elements(_element(part), _element(other), budget)), None)
        if match is None:
            return False
        remaining.remove(match)
    return True


def _judge(predicted: str, answer: str, budget: TimeBudget) -> bool:
    if has_words(predicted) or has_words(answer) or not (predicted and answer):
        return False
    predicted, answer = _tell_capitals_apart(predicted, answer)
    if predicted.count("=") != answer.count("=") or answer.count("=") > 1:
        return False  # math-verify would compare right-hand sides alone
    return JUDGE.is_equivalent(predicted, answer, budget)


def _tell_capitals_apart(predicted: str, answer: str) -> tuple[str, str]:
    """math-verify reads R as r: where both occur, the capital is replaced by a letter that does not."""
    symbols = set(re.findall(r"\\[a-zA-Z]+|[a-zA-Z]", predicted + " " + answer))
    free = iter([letter for letter in "qwvuzshkjlpygfmrtbacnxo" if not {letter, letter.upper()} & symbols])
    for capital in sorted(symbol for symbol in symbols if symbol.isupper() and symbol.lower() in symbols):
        substitute = next(free, None)
        if substitute is None:
            break
        pattern = re.compile(rf"\\[a-zA-Z]+|{capital}")
        swap = (lambda old, new: lambda match: new if match[0] == old else match[0])(capital, substitute)
        predicted, answer = pattern.sub(swap, predicted), pattern.sub(swap, answer)
    return predicted, answer
