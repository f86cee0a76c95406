"""How a bank grows: memories to drafts to items, duplicates merged, while training or from the command line."""

from sgsd_lightning.skills.growth.language_model_writer import LanguageModelWriter

__all__ = ["LanguageModelWriter"]
