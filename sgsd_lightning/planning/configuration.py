"""From the configuration of a run to what its memory depends on, without loading a model or data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig, Qwen3Config

from sgsd_lightning.engines import TransformersEngine
from sgsd_lightning.planning.model_shape import ModelShape, config_by_name, shape_from_config
from sgsd_lightning.planning.run_settings import Accelerator, RunSettings, Strategy, Teacher
from sgsd_lightning.policy import LoraSettings, PretrainedPolicy, RandomPolicy
from sgsd_lightning.training.learner import ScoringSettings

_TEACHERS: dict[str, Teacher] = {
    "LiveTeacher": "live",
    "FrozenTeacher": "frozen",
    "EmaTeacher": "ema",
    "PeriodicTeacher": "periodic",
}
_OPTIMIZER_MOMENTS = {"AdamW": 2, "Adam": 2, "NAdam": 2, "RAdam": 2, "Adamax": 2, "RMSprop": 1, "Adagrad": 1}


@dataclass(kw_only=True)
class ReadConfiguration:
    """Settings, and what had to be assumed."""

    settings: RunSettings
    model_name: str
    assumptions: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """What a configuration does not say, or what is to be tried in its place; None leaves it to the configuration."""

    model_name: str | None = None
    num_devices: int | None = None
    prompt_tokens: int | None = None
    teacher_prompt_tokens: int | None = None


def read_configuration(config: Mapping[str, Any], estimates: Estimates) -> ReadConfiguration:
    """The settings of a run.

    Args:
        config: As `sgsd fit --print_config` writes it.
        estimates: See there.

    Raises:
        ValueError: for a policy, a strategy or a teacher that nothing is known of, naming the field.
    """
    assumptions: list[str] = []
    model, trainer = _arguments(config, "model"), config["trainer"]
    policy = _policy(config, estimates.model_name)
    strategy = _strategy(trainer, estimates.num_devices, assumptions)
    settings = RunSettings(
        shape=_shape(policy),
        dtype=_dtype(policy, trainer),
        autocast_dtype=_autocast(str(trainer["precision"])),
        gradient_checkpointing=bool(policy["init_args"].get("gradient_checkpointing", False)),
        accelerator=_accelerator(trainer, assumptions),
        accumulate_grad_batches=int(trainer["accumulate_grad_batches"] or 1),
        teacher=_teacher(model),
        **_scoring(model),
        **strategy,
        **_tokens(config, estimates, assumptions),
        **_rollouts(model),
        **_evaluation(config, estimates),
        **_optimizer(model, assumptions),
    )
    name = str(policy["init_args"].get("model_name_or_path") or policy["class_path"].rpartition(".")[2])
    return ReadConfiguration(settings=settings, model_name=name, assumptions=assumptions)


def _arguments(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name)
    if not isinstance(part, Mapping) or "class_path" not in part:
        raise ValueError(f"the configuration has no {name}; give one with --config, such as --config sgsd_toy")
    return dict(part.get("init_args") or {})


def _class_name(part: Mapping[str, Any] | None) -> str | None:
    return None if part is None else str(part["class_path"]).rpartition(".")[2]


def _policy(config: Mapping[str, Any], model_name: str | None) -> dict[str, Any]:
    part = _arguments(config, "model").get("policy")
    if part is None:
        raise ValueError("model.init_args.policy is missing; name one, such as sgsd_lightning.policy.PretrainedPolicy")
    policy = {"class_path": part["class_path"], "init_args": dict(part.get("init_args") or {})}
    if model_name is not None:
        names = ("dtype", "gradient_checkpointing", "lora")
        kept = {name: policy["init_args"][name] for name in names if name in policy["init_args"]}
        path = f"{PretrainedPolicy.__module__}.PretrainedPolicy"
        return {"class_path": path, "init_args": {**kept, "model_name_or_path": model_name}}
    return policy


def _shape(policy: Mapping[str, Any]) -> ModelShape:
    shape = shape_from_config(_model_config(policy))
    lora = policy["init_args"].get("lora")
    if lora is None:
        return shape
    settings = LoraSettings(**lora)
    return shape.with_adapters(settings.rank, settings.target_modules)


def _model_config(policy: Mapping[str, Any]) -> PreTrainedConfig:
    name, arguments = _class_name(policy), policy["init_args"]
    if name == "RandomPolicy":
        source = RandomPolicy(**{key: value for key, value in arguments.items() if key != "lora"})
        return Qwen3Config(vocab_size=len(source.load_tokenizer()), **source.config_arguments)
    if name == "ToyPolicy":
        return _toy_config()
    if "model_name_or_path" in arguments:
        return config_by_name(arguments["model_name_or_path"])
    raise ValueError(
        f"model.init_args.policy is a {policy['class_path']}, whose model is not known before it is loaded; name one "
        "of the same size with --model"
    )


def _toy_config() -> PreTrainedConfig:
    from sgsd_lightning.toy.recipe import BaseModelSettings, model_config
    from sgsd_lightning.toy.tokenizer import toy_tokenizer

    return model_config(BaseModelSettings(), toy_tokenizer())


def _dtype(policy: Mapping[str, Any], trainer: Mapping[str, Any]) -> Any:
    by_trainer = {"bf16-true": "bfloat16", "16-true": "float16"}
    return by_trainer.get(str(trainer["precision"]), policy["init_args"].get("dtype", "float32"))


def _autocast(precision: str) -> Any:
    if precision in ("None", "32", "32-true", "bf16-true", "16-true"):
        return None
    known = {"bf16-mixed": "bfloat16", "bf16": "bfloat16", "16-mixed": "float16", "16": "float16"}
    if precision not in known:
        raise ValueError(
            f"trainer.precision {precision!r} is not supported by `sgsd plan`; use 32-true, bf16-mixed or 16-mixed"
        )
    return known[precision]


def _accelerator(trainer: Mapping[str, Any], assumptions: list[str]) -> Accelerator:
    accelerator = trainer["accelerator"]
    if accelerator == "cpu":
        return "cpu"
    if accelerator not in ("gpu", "cuda"):
        assumptions.append(f"trainer.accelerator is {accelerator!r}: a CUDA GPU is assumed")
    return "gpu"


def _strategy(trainer: Mapping[str, Any], num_devices: int | None, assumptions: list[str]) -> dict[str, Any]:
    count = num_devices or _num_devices(trainer, assumptions)
    strategy = trainer["strategy"]
    arguments = dict(strategy.get("init_args") or {}) if isinstance(strategy, Mapping) else {}
    name = str(_class_name(strategy) if isinstance(strategy, Mapping) else strategy)
    kind = _strategy_kind(name, count)
    if kind == "single" and count > 1:
        raise ValueError(f"trainer.strategy {name} runs on one device, but there are {count}; use ddp or fsdp2")
    options = ("param_dtype", "reduce_dtype", "reshard_after_forward")
    chosen = {option: arguments[option] for option in options if option in arguments} if kind == "fsdp2" else {}
    return {"strategy": kind, "num_devices": count, **chosen}


def _strategy_kind(name: str, num_devices: int) -> Strategy:
    if name in ("None", "auto"):
        return "ddp" if num_devices > 1 else "single"
    if name.startswith("ddp") or name == "DDPStrategy":
        return "ddp"
    if name in ("fsdp2", "FSDP2Strategy"):
        return "fsdp2"
    if name in ("single_device", "SingleDeviceStrategy"):
        return "single"
    raise ValueError(f"trainer.strategy {name!r} is not supported by `sgsd plan`; it knows auto, ddp and fsdp2")


def _num_devices(trainer: Mapping[str, Any], assumptions: list[str]) -> int:
    devices, num_nodes = trainer["devices"], int(trainer["num_nodes"] or 1)
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        devices = int(devices) if devices.isdigit() else devices.split(",")
    if isinstance(devices, (list, tuple)):
        return len(devices) * num_nodes
    if isinstance(devices, int) and devices > 0:
        return devices * num_nodes
    assumptions.append(f"trainer.devices is {devices!r}: one device a node is assumed; --num-devices says how many")
    return num_nodes


def _teacher(model: Mapping[str, Any]) -> Teacher:
    name = _class_name(model.get("teacher_weights")) or "LiveTeacher"
    if name not in _TEACHERS:
        raise ValueError(
            f"model.init_args.teacher_weights {name!r} is not supported by `sgsd plan`; it knows {', '.join(_TEACHERS)}"
        )
    return _TEACHERS[name]


def _tokens(config: Mapping[str, Any], estimates: Estimates, assumptions: list[str]) -> dict[str, Any]:
    model = _arguments(config, "model")
    prompts = (model.get("prompts") or {}).get("init_args") or {}
    limit = prompts.get("max_prompt_tokens") or 4096
    for flag, given in (("prompt", estimates.prompt_tokens), ("teacher-prompt", estimates.teacher_prompt_tokens)):
        if given is None:
            assumptions.append(
                f"every {flag.replace('-', ' ')} is as long as prompts.max_prompt_tokens allows, {limit} tokens; "
                f"--{flag}-tokens says how long they are"
            )
    contexts = model.get("contexts") or {}
    return {
        "num_contexts": _num_contexts(contexts),
        "problems_per_batch": int(_arguments(config, "data").get("batch_size", 1)),
        "prompt_tokens": estimates.prompt_tokens or limit,
        "teacher_prompt_tokens": estimates.teacher_prompt_tokens or limit,
        "completion_tokens": (_rollouter(model).get("sampling") or {}).get("max_new_tokens", 1024),
    }


def _num_contexts(contexts: Mapping[str, Any]) -> int:
    arguments = contexts.get("init_args") or {}
    if "num_contexts" in arguments:
        return int(arguments["num_contexts"])
    return 1


def _rollouter(model: Mapping[str, Any]) -> dict[str, Any]:
    return dict((model.get("rollouts") or {}).get("init_args") or {})


def _scoring(model: Mapping[str, Any]) -> dict[str, Any]:
    scoring = model.get("scoring") or {}
    default = ScoringSettings()
    return {
        name: scoring.get(name, getattr(default, name))
        for name in ("teacher_tokens_per_forward", "head_implementation")
    }


def _rollouts(model: Mapping[str, Any]) -> dict[str, Any]:
    defaults = inspect.signature(TransformersEngine).parameters
    rollouter = _rollouter(model)
    engine = (rollouter.get("engine") or {}).get("init_args") or {}
    return {
        "group_size": rollouter.get("group_size", 1),
        "rollout_batch_size": engine.get("batch_size", defaults["batch_size"].default),
        "rollout_batch_tokens": engine.get("max_batch_tokens", defaults["max_batch_tokens"].default),
        "gather_weights": engine.get("gather_weights", True),
    }


def _evaluation(config: Mapping[str, Any], estimates: Estimates) -> dict[str, Any]:
    data, evaluation = _arguments(config, "data"), _arguments(config, "model").get("evaluation") or {}
    if not data.get("validation") or config["trainer"].get("limit_val_batches") == 0:
        return {}
    return {
        "evaluation_rollouts": data.get("evaluation_batch_size", 16) * evaluation.get("group_size", 1),
        "evaluation_completion_tokens": (evaluation.get("sampling") or {}).get("max_new_tokens", 1024),
    }


def _optimizer(model: Mapping[str, Any], assumptions: list[str]) -> dict[str, Any]:
    optimizer = model.get("optimizer") or {"class_path": "torch.optim.AdamW"}
    name, arguments = str(_class_name(optimizer)), optimizer.get("init_args") or {}
    if name == "SGD":
        moments = int(bool(arguments.get("momentum")))
    else:
        moments = _OPTIMIZER_MOMENTS.get(name, 2) + int(bool(arguments.get("amsgrad")))
        if name not in _OPTIMIZER_MOMENTS:
            assumptions.append(
                f"model.init_args.optimizer {name} keeps two numbers for each trained one, as AdamW does"
            )
    is_fused = bool(arguments.get("fused")) or arguments.get("foreach") is False
    return {"optimizer": name, "num_optimizer_moments": moments, "is_optimizer_fused": is_fused}
