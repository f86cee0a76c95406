"""Language models that write or judge: behind an endpoint, in a local folder, or the policy itself."""

from sgsd_lightning.language_models.base import Answer, LanguageModel
from sgsd_lightning.language_models.endpoint import EndpointModel
from sgsd_lightning.language_models.local import LocalModel, TrainedPolicy

__all__ = ["Answer", "EndpointModel", "LanguageModel", "LocalModel", "TrainedPolicy"]
