"""The skill bank: schema, retrieval, pairs."""

from sgsd_lightning.skills.bank import Mistake, Skill, SkillBank, is_dynamic
from sgsd_lightning.skills.pairs import Pair, Weighting, check_num_contexts, pair_by_rank
from sgsd_lightning.skills.retrieval import EmbeddingRetriever, LexicalRetriever, RandomRetriever, Ranking, Retriever

__all__ = [
    "EmbeddingRetriever",
    "LexicalRetriever",
    "Mistake",
    "Pair",
    "RandomRetriever",
    "Ranking",
    "Retriever",
    "Skill",
    "SkillBank",
    "Weighting",
    "check_num_contexts",
    "is_dynamic",
    "pair_by_rank",
]
