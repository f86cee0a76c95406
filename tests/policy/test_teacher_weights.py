"""Teacher weights: live ones follow the student, frozen ones do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.policy import FrozenTeacher, LiveTeacher, LoraSettings, RandomPolicy, TeacherWeights

IDS = torch.tensor([[5, 6, 7, 8]])


def _policy(has_adapters: bool) -> RandomPolicy:
    lora = LoraSettings(rank=2, alpha=4) if has_adapters else None
    return RandomPolicy(hidden_size=32, num_heads=4, num_kv_heads=2, intermediate_size=48, lora=lora)


def _train(model: PreTrainedModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def _logits(teacher: TeacherWeights, student: PreTrainedModel) -> Tensor:
    with torch.no_grad(), teacher.activate(student) as model:
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("has_adapters", [False, True])
def test_frozen_weights_are_the_initial_ones_whatever_the_student_learns(has_adapters: bool) -> None:
    policy, teacher = _policy(has_adapters), FrozenTeacher()
    student = policy.load_model()
    initial = student(input_ids=IDS).logits.detach()
    teacher.prepare(student)
    _train(student)
    assert torch.equal(_logits(teacher, student), initial)
    assert not torch.allclose(student(input_ids=IDS).logits, initial, atol=1e-3)


@pytest.mark.parametrize("has_adapters", [False, True])
def test_frozen_weights_are_the_initial_ones_of_the_source_also_after_a_resume(has_adapters: bool) -> None:
    policy, teacher = _policy(has_adapters), FrozenTeacher()
    initial = policy.load_model()(input_ids=IDS).logits.detach()
    resumed = policy.load_model()
    _train(resumed)
    teacher.prepare(resumed)
    assert torch.equal(_logits(teacher, resumed), initial)
    assert teacher.state_dict() == {}


@pytest.mark.parametrize("has_adapters", [False, True])
def test_live_weights_are_the_students(has_adapters: bool) -> None:
    policy, teacher = _policy(has_adapters), LiveTeacher()
    student = policy.load_model()
    teacher.prepare(student)
    _train(student)
    assert torch.equal(_logits(teacher, student), student(input_ids=IDS).logits)


def test_a_frozen_copy_takes_no_gradient_and_is_not_in_training_mode() -> None:
    policy, teacher = _policy(has_adapters=False), FrozenTeacher()
    student = policy.load_model()
    teacher.prepare(student)
    with teacher.activate(student) as model:
        assert model is not student
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_frozen_teacher_that_was_not_prepared_says_so() -> None:
    student = _policy(has_adapters=False).load_model()
    with pytest.raises(RuntimeError, match="called before prepare"), FrozenTeacher().activate(student):
        pass
