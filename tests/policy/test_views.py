"""Views of the policy: what each teacher knows after a few steps, and that the student comes back untouched."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sgsd_lightning.policy import (
    EmaTeacher,
    FrozenTeacher,
    LiveTeacher,
    LoraSettings,
    PeriodicTeacher,
    PolicyView,
    RandomPolicy,
)

IDS = torch.tensor([[5, 6, 7, 8]])
KINDS = ["full, tied", "full, untied", "lora"]


def loaded(kind: str, **settings: object) -> PreTrainedModel:
    return RandomPolicy(
        hidden_size=32,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=48,
        tie_word_embeddings=kind != "full, untied",
        lora=LoraSettings(rank=2, alpha=4) if kind == "lora" else None,
        **settings,  # type: ignore[arg-type]
    ).load_model()


def trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def train(model: PreTrainedModel) -> None:
    """One optimizer step, as far as a teacher can see."""
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.1 * torch.randn_like(parameter))


def logits(teacher: PolicyView, student: PreTrainedModel) -> Tensor:
    with torch.no_grad(), teacher.activate(student) as model:
        return model(input_ids=IDS).logits


def logits_of(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_weights_are_the_initial_ones_whatever_the_student_learns(kind: str) -> None:
    student, teacher = loaded(kind), FrozenTeacher()
    initial = logits_of(student)
    teacher.prepare(student)
    train(student)
    assert torch.equal(logits(teacher, student), initial)
    assert not torch.allclose(logits_of(student), initial, atol=1e-3)
    assert not teacher.is_saved
    assert bool(list(teacher.parameters())) == (kind != "lora")


@pytest.mark.parametrize("kind", KINDS)
def test_live_weights_are_the_students_and_cost_no_copy(kind: str) -> None:
    student, teacher = loaded(kind), LiveTeacher()
    teacher.prepare(student)
    train(student)
    assert torch.equal(logits(teacher, student), logits_of(student))
    assert not list(teacher.parameters())


@pytest.mark.parametrize("every_n_steps", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_moving_average_is_that_of_a_separate_model(kind: str, every_n_steps: int) -> None:
    """The expectation is a second model whose parameters are averaged in float64."""
    student, teacher, decay = loaded(kind), EmaTeacher(0.7, every_n_steps), 0.7
    expected = deepcopy(student)
    average = {name: value.detach().double() for name, value in trainable(student).items()}
    teacher.prepare(student)
    for step in range(1, 5):
        train(student)
        teacher.update(student, step)
        if step % every_n_steps == 0:
            for name, value in trainable(student).items():
                average[name] = decay * average[name] + (1 - decay) * value.detach().double()
    with torch.no_grad():
        for name, value in trainable(expected).items():
            value.copy_(average[name])
    torch.testing.assert_close(logits(teacher, student), logits_of(expected), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(teacher, student), logits_of(student), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_periodic_teacher_is_the_student_of_the_last_refresh(kind: str) -> None:
    student, teacher = loaded(kind), PeriodicTeacher(2)
    teacher.prepare(student)
    seen = logits_of(student)
    for step in range(1, 6):
        train(student)
        teacher.update(student, step)
        if step % 2 == 0:
            seen = logits_of(student)
        assert torch.equal(logits(teacher, student), seen)


@pytest.mark.parametrize("kind", [*KINDS, "full but the head"])
@pytest.mark.parametrize("make", [LiveTeacher, FrozenTeacher, EmaTeacher, PeriodicTeacher])
def test_a_view_shares_the_students_head_exactly_where_its_weights_stay_the_same(
    make: type[PolicyView], kind: str
) -> None:
    student, teacher = loaded("full, untied" if kind == "full but the head" else kind), make()
    if kind == "full but the head":
        student.lm_head.weight.requires_grad_(False)
    teacher.prepare(student)
    train(student)
    own = student.get_output_embeddings().weight.detach().clone()
    with teacher.activate(student) as model:
        is_same = torch.equal(model.get_output_embeddings().weight, own)
        assert teacher.shares_head(model) == is_same
    assert is_same == (make is LiveTeacher or kind in ("lora", "full but the head"))


def test_only_what_costs_no_exchange_is_looked_through_by_a_sampler() -> None:
    views = (LiveTeacher, FrozenTeacher, EmaTeacher, PeriodicTeacher)
    assert all("teacher" in view.applies_to for view in views)
    assert [view for view in views if "sampler" in view.applies_to] == [LiveTeacher]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_student_comes_back_bit_for_bit_also_after_an_error(kind: str, dtype: str) -> None:
    student, teacher = loaded(kind, dtype=dtype), EmaTeacher(0.9)
    teacher.prepare(student)
    train(student)
    teacher.update(student, 1)
    before = {name: value.detach().clone() for name, value in student.named_parameters()}
    shadow = {name: value.detach().clone() for name, value in teacher.named_parameters()}
    with pytest.raises(KeyboardInterrupt), teacher.activate(student):
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in student.named_parameters())
    assert all(torch.equal(value, shadow[name]) for name, value in teacher.named_parameters())
    assert {value.dtype for value in shadow.values()} == {torch.float32}
    assert len(shadow) == len(trainable(student))


def test_small_updates_add_up_in_float32_beside_weights_in_bfloat16() -> None:
    student, teacher = loaded("full, tied", dtype="bfloat16"), EmaTeacher(0.999)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(1.0)
        teacher.prepare(student)
        for parameter in student.parameters():
            parameter.fill_(2.0)
    for step in range(1, 11):
        teacher.update(student, step)
    values = torch.cat([value.flatten() for value in teacher.parameters()])
    torch.testing.assert_close(values, torch.full_like(values, 2 - 0.999**10))


def test_autocast_does_not_keep_the_students_weights_for_the_teacher() -> None:
    """Autocast caches casts of weights that require gradients; an exchange must not be hidden behind them."""
    student, teacher = loaded("full, tied"), FrozenTeacher()
    teacher.prepare(student)
    with torch.autocast("cpu", torch.bfloat16):
        expected = logits_of(student)
    train(student)
    with torch.autocast("cpu", torch.bfloat16):
        student(input_ids=IDS)
        assert torch.equal(logits(teacher, student), expected)
        assert not torch.equal(student(input_ids=IDS).logits, expected)


def test_a_teachers_weights_are_part_of_the_state_dict() -> None:
    student, teacher, other = loaded("lora"), EmaTeacher(0.5), EmaTeacher(0.5)
    teacher.prepare(student)
    other.prepare(student)
    train(student)
    teacher.update(student, 1)
    other.load_state_dict(teacher.state_dict())
    assert torch.equal(logits(other, student), logits(teacher, student))


def test_a_teacher_that_was_not_prepared_says_so() -> None:
    student = loaded("full, tied")
    with pytest.raises(RuntimeError, match="FrozenTeacher was used before prepare"), FrozenTeacher().activate(student):
        pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmaTeacher(1.5), r"teacher_weights.decay must be in \[0, 1\]; got 1.5"),
        (lambda: EmaTeacher(every_n_steps=0), "teacher_weights.every_n_steps must be at least 1; got 0"),
        (lambda: PeriodicTeacher(-1), "teacher_weights.every_n_steps must be at least 1; got -1"),
    ],
)
def test_bad_settings_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
