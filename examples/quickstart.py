"""What `sgsd fit --config sgsd_toy` does, from Python: python examples/quickstart.py"""

from functools import partial

from torch.optim import AdamW

from sgsd_lightning import ProblemDataModule, SelfDistillation, Trainer
from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.rollouts import SingleTurn
from sgsd_lightning.toy import PAIR_TEMPLATE, STUDENT_TEMPLATE, TEACHER_TEMPLATE, TOY_BANK, ToyPolicy, ToyProblems
from sgsd_lightning.training import EvaluationSettings, ScoringSettings
from sgsd_lightning.types import SamplingSettings

sampling = SamplingSettings(max_new_tokens=32)
module = SelfDistillation(
    policy=ToyPolicy(),
    contexts=SkillPairs(TOY_BANK, num_contexts=8, template=PAIR_TEMPLATE),
    objective=GatedPolarity(stance_threshold=0.05),
    rollouts=SingleTurn(group_size=4, sampling=sampling),
    evaluation=EvaluationSettings(group_size=4, sampling=sampling),
    prompts=ChatPrompts(STUDENT_TEMPLATE, TEACHER_TEMPLATE, student_template_args={"enable_thinking": False}),
    scoring=ScoringSettings(teacher_tokens_per_forward=2048),
    optimizer=partial(AdamW, lr=2e-4, weight_decay=0.0),
)
data = ProblemDataModule(ToyProblems("train", 2000), ToyProblems("validation", 50), batch_size=8)
steps = {"max_steps": 40, "val_check_interval": 10, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
trainer = Trainer(default_root_dir="runs/quickstart", accelerator="cpu", devices=1, gradient_clip_val=1.0, **steps)
trainer.fit(module, data)
