"""The toy world's prompt texts: what the base model is trained on, and what its YAML config has to repeat."""

from __future__ import annotations

STUDENT_TEMPLATE = "Evaluate modulo ten:\n{problem}"
"""The user message of a plain prompt."""

TEACHER_TEMPLATE = "{context}\n\nEvaluate modulo ten:\n{problem}"
"""The user message of a prompt with guidance."""

PAIR_TEMPLATE = "Skill: {title}. {principle}\nMistake: {description} {how_to_avoid}"
"""How one skill and one mistake become a teacher's context."""

SOLUTION_TEMPLATE = "Reference solution:\n{reference}"
"""How a worked solution becomes a teacher's context (OPSD)."""
