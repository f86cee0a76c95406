"""The skill bank: schema, retrieval, pairs."""

from sgsd_lightning.skills.bank import Mistake, Skill, SkillBank, is_dynamic
from sgsd_lightning.skills.evidence import EvidenceLedger, Tally
from sgsd_lightning.skills.pairs import Pair, Weighting, check_num_contexts, pair_by_rank
from sgsd_lightning.skills.retrieval import EmbeddingRetriever, LexicalRetriever, RandomRetriever, Ranking, Retriever
from sgsd_lightning.skills.selection import EvidenceSettings, Selection, is_on_probation

__all__ = [
    "EmbeddingRetriever",
    "EvidenceLedger",
    "EvidenceSettings",
    "LexicalRetriever",
    "Mistake",
    "Pair",
    "RandomRetriever",
    "Ranking",
    "Retriever",
    "Selection",
    "Skill",
    "SkillBank",
    "Tally",
    "Weighting",
    "check_num_contexts",
    "is_dynamic",
    "is_on_probation",
    "pair_by_rank",
]
