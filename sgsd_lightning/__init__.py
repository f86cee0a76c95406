"""On-policy self-distillation for LLM reasoning, as a PyTorch Lightning module."""

__version__ = "0.1.0"
