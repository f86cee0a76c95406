"""Language models that write, judge or criticise: behind an endpoint, in a local folder, or the policy itself."""

from sgsd_lightning.language_models.ask import Reply, ask
from sgsd_lightning.language_models.base import Answer, LanguageModel, ModelUnavailableError
from sgsd_lightning.language_models.cache import AnswerCache
from sgsd_lightning.language_models.cached import CachedModel
from sgsd_lightning.language_models.endpoint import EndpointModel
from sgsd_lightning.language_models.local import LocalModel, TrainedPolicy, TransformersChat
from sgsd_lightning.language_models.tally import CallTally, FailureLimit, TooManyFailuresError
from sgsd_lightning.language_models.together import ask_together

__all__ = [
    "Answer",
    "AnswerCache",
    "CachedModel",
    "CallTally",
    "EndpointModel",
    "FailureLimit",
    "LanguageModel",
    "LocalModel",
    "ModelUnavailableError",
    "Reply",
    "TooManyFailuresError",
    "TrainedPolicy",
    "TransformersChat",
    "ask",
    "ask_together",
]
