"""Operations of one optimizer step of a run, phase by phase, over all devices."""

from __future__ import annotations

from sgsd_lightning.planning.flops import Flops, generation_flops, scoring_flops, training_flops
from sgsd_lightning.planning.run_settings import RunSettings


def step_flops(run: RunSettings) -> dict[str, Flops]:
    """The rollouts, the teachers, and the student's forward and backward pass.

    Every prompt and completion is as long as the settings say; a prompt that several completions share is counted with
    each.
    """
    num_rollouts = run.num_step_rollouts * run.num_devices
    completion, num_sequences = run.completion_tokens, run.num_contexts
    teachers = scoring_flops(run.shape, [run.teacher_length] * num_sequences, num_sequences * completion)
    student = training_flops(
        run.shape, [run.student_length], completion, gradient_checkpointing=run.gradient_checkpointing
    )
    return {
        "rollout": generation_flops(run.shape, [run.prompt_tokens], [completion]) * num_rollouts,
        "teachers": teachers * num_rollouts,
        "student forward": Flops(forward=student.forward) * num_rollouts,
        "student backward": Flops(backward=student.backward, recompute=student.recompute) * num_rollouts,
    }
