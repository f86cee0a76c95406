"""`sgsd evaluate` and `sgsd compare`: samples are kept, work goes on, and other settings are not mixed in."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgsd_lightning.cli import main
from sgsd_lightning.cli.evaluate import parse_shard, write_scores
from sgsd_lightning.evaluation.samples import Sample
from tests.support.tiny_runs import write_run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = (tmp_path / "problems.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "first.jsonl").write_text("".join(lines[:3]))
    (tmp_path / "second.jsonl").write_text("".join(lines[2:5]))
    return tmp_path


def evaluate(*arguments: str) -> int:
    return main(["evaluate", "--config=run.yaml", "--model.init_args.evaluation.sampling.max_new_tokens=5", *arguments])


def rows(out: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(Path(out).glob("samples*.jsonl")) for line in path.read_text().splitlines()
    ]


def by_key(out: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    return {(row["problem_set"], row["problem_id"], row["index"]): row for row in rows(out)}


def test_samples_do_not_depend_on_stops_shards_or_how_many_are_asked_for(folder: Path) -> None:
    problems = "--problems=first.jsonl,second.jsonl"
    assert evaluate(problems, "--samples=3", "--out=whole") == 0
    whole = by_key("whole")
    assert len(whole) == len(rows("whole")) == 18
    assert evaluate(problems, "--samples=1", "--out=parts", "--shard=1/2") == 0
    path = Path("parts/samples-1of2.jsonl")
    assert len(path.read_text().splitlines()) == 3
    path.write_text(path.read_text()[:-30])  # killed in the middle of a line
    for shard in ("0/2", "1/2"):
        assert evaluate(problems, "--samples=3", "--out=parts", f"--shard={shard}") == 0
    assert by_key("parts") == whole
    assert len(rows("parts")) == 18
    assert evaluate(problems, "--samples=3", "--out=parts") == 0
    assert len(rows("parts")) == 18
    assert Path("parts/summary.json").read_text() == Path("whole/summary.json").read_text()
    summary = json.loads(Path("whole/summary.json").read_text())["problem_sets"]
    assert [(entry["problem_set"], entry["num_problems"]) for entry in summary] == [
        ("first", 3),
        ("second", 3),
        ("all", 6),
    ]
    with Path("whole/problems.csv").open(newline="") as file:
        assert [row["num_samples"] for row in csv.DictReader(file)] == ["3"] * 6


def test_scores_of_problems_named_by_formulas_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = Sample(
        problem_set="set\x1b[31m",
        problem_id="=cmd|' /C calc'!A0",
        index=0,
        is_correct=False,
        answer="+x",
        reference_answer="-5",
        completion_tokens=3,
        finish_reason="stopped",
        sources=(),
        completion="",
    )
    write_scores(tmp_path, [sample], None)
    (row,) = csv.DictReader((tmp_path / "problems.csv").read_text(encoding="utf-8").splitlines())
    assert row["problem_id"] == "'=cmd|' /C calc'!A0"
    assert (row["most_frequent_answer"], row["reference_answer"]) == ("'+x", "-5")
    assert "set\\x1b[31m" in capsys.readouterr().out


def test_another_chat_template_is_another_evaluation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.jinja").write_text("{{ messages[-1].content }}<|im_start|>")
    Path("b.jinja").write_text("{{ messages[-1].content }}<|im_end|>")
    Path("moved.jinja").write_text(Path("a.jinja").read_text())
    asked = ["--problems=first.jsonl", "--samples=1", "--out=x"]
    template = "--model.init_args.prompts.init_args.chat_template="
    assert evaluate(*asked, f"{template}a.jinja") == evaluate(*asked, f"{template}moved.jinja") == 0
    assert evaluate(*asked, f"{template}b.jinja") == 2
    assert "what differs: prompts of first" in capsys.readouterr().err


def test_prompts_with_skills_are_another_evaluation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skills = {"class_path": "sgsd_lightning.contexts.SkillPairs", "init_args": {"bank": "bank.json", "num_contexts": 2}}
    Path("skills.json").write_text(json.dumps(skills))
    shown = "--model.init_args.evaluation.contexts=skills.json"
    problems = "--problems=first.jsonl"
    assert evaluate(problems, "--samples=2", "--out=plain") == 0
    assert evaluate(problems, "--samples=2", "--out=skills", shown) == 0
    assert {tuple(row["sources"]) for row in rows("plain")} == {()}
    assert len({tuple(row["sources"]) for row in rows("skills")}) == 2
    assert main(["compare", "plain", "skills", "--out=compared.json"]) == 0
    assert json.loads(Path("compared.json").read_text())[0]["num_problems"] == 3
    capsys.readouterr()
    assert evaluate(problems, "--out=plain", shown) == 2
    said = capsys.readouterr().err
    assert "plain holds samples of another evaluation; what differs: model.evaluation" in said
    Path("first.jsonl").write_text(Path("second.jsonl").read_text())
    assert evaluate(problems, "--out=plain") == 2
    assert "what differs: problems of first" in capsys.readouterr().err


def test_another_shard_s_half_line_is_its_own_to_mend(folder: Path) -> None:
    assert evaluate("--problems=first.jsonl", "--samples=1", "--out=parts", "--shard=1/2") == 0
    path = Path("parts/samples-1of2.jsonl")
    half = path.read_bytes()[:-30] + "é".encode()[:1]  # in the middle of a line, and of a letter
    path.write_bytes(half)
    assert evaluate("--problems=first.jsonl", "--samples=1", "--out=parts", "--shard=0/2") == 0
    assert path.read_bytes() == half
    assert evaluate("--problems=first.jsonl", "--samples=1", "--out=parts", "--shard=1/2") == 0
    assert len(by_key("parts")) == len(rows("parts")) == 3


def test_a_checkpoint_s_samples_are_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config=run.yaml", "--trainer.max_steps=2", "--trainer.accumulate_grad_batches=1"]) == 0
    assert evaluate("--problems=first.jsonl", "--samples=2", "--out=trained", "--ckpt_path=last") == 0
    assert evaluate("--problems=first.jsonl", "--samples=2", "--out=untrained") == 0
    trained, untrained = by_key("trained"), by_key("untrained")
    assert trained.keys() == untrained.keys()
    assert trained != untrained
    capsys.readouterr()
    assert evaluate("--problems=first.jsonl", "--samples=2", "--out=trained") == 2
    assert "what differs: weights" in capsys.readouterr().err


def config_of(name: str, **policy: Any) -> str:
    """The run's configuration with a policy from a Hugging Face folder."""
    config = yaml.safe_load(Path("run.yaml").read_text())
    source = {"class_path": "sgsd_lightning.policy.PretrainedPolicy", "init_args": policy}
    config["model"]["init_args"]["policy"] = source
    Path(name).write_text(yaml.safe_dump(config))
    return f"--config={name}"


@pytest.mark.parametrize("adapter", ["merged", "adapter"])
def test_an_exported_policy_gives_the_same_samples(adapter: str, folder: Path) -> None:
    assert main(["export", "--config=run.yaml", "--folder=base"]) == 0
    trained = config_of("trained.yaml", model_name_or_path="base", lora={"rank": 4, "alpha": 8})
    steps = ["--trainer.max_steps=2", "--trainer.accumulate_grad_batches=1"]
    assert main(["fit", trained, *steps, "--model.init_args.optimizer.init_args.lr=0.5"]) == 0
    assert main(["export", trained, f"--folder={adapter}", "--ckpt_path=last", f"--adapter={adapter}"]) == 0
    source = {"model_name_or_path": "base", "adapter_path": adapter} if adapter == "adapter" else {}
    exported = config_of("exported.yaml", **{"model_name_or_path": adapter, **source})
    common = ["--problems=first.jsonl", "--samples=2", "--model.init_args.evaluation.sampling.max_new_tokens=5"]
    assert main(["evaluate", trained, *common, "--out=a", "--ckpt_path=last"]) == 0
    assert main(["evaluate", exported, *common, "--out=b"]) == 0
    assert main(["evaluate", config_of("base.yaml", model_name_or_path="base"), *common, "--out=c"]) == 0
    of_checkpoint, of_folder, untrained = (
        {key: row["completion"] for key, row in by_key(out).items()} for out in ("a", "b", "c")
    )
    assert of_checkpoint == of_folder != untrained


def test_an_adapter_is_told_from_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--config=run.yaml", "--folder=base"]) == 0
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text("{}")
    tokenizer, some = {"tokenizer_name_or_path": "base"}, ["--problems=first.jsonl"]
    capsys.readouterr()
    assert main(["evaluate", config_of("a.yaml", model_name_or_path="adapter", **tokenizer), *some, "--out=a"]) == 2
    assert "holds a LoRA adapter and no model; give it as policy.adapter_path" in capsys.readouterr().err
    assert (
        main(["evaluate", config_of("b.yaml", model_name_or_path="base", adapter_path="base"), *some, "--out=b"]) == 2
    )
    assert (
        "policy.adapter_path 'base' is no LoRA adapter of this model (it has no adapter_config.json)"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "sgsd evaluate needs problems: give --problems, or set data.init_args.test"),
        (["--samples=0"], "--samples must be at least 1; got 0"),
        (["--shard=2/2"], "--shard must be i/n with 0 <= i < n, such as 0/4; got '2/2'"),
        (["--problems=nowhere.jsonl"], "problem file nowhere.jsonl does not exist"),
        (["--problems=first.jsonl,first.jsonl"], "--problems names two sets 'first'"),
        (
            ["--problems=aime99"],
            "--problems aime99: neither a .jsonl or .parquet file nor a problem set; there are aime24",
        ),
        (["--problems=,"], "--problems names no problem set"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*arguments, "--out=nothing") == 2
    assert message in capsys.readouterr().err
    assert not Path("nothing/samples.jsonl").exists()


@pytest.mark.parametrize("text", ["", "1", "a/b", "-1/2", "1/0", "3/3"])
def test_a_shard_is_one_of_several(text: str) -> None:
    with pytest.raises(ValueError, match="--shard must be i/n"):
        parse_shard(text)
    assert parse_shard("2/3") == (2, 3)


def test_comparing_what_is_no_evaluation_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", ".", "."]) == 2
    assert "holds no samples*.jsonl: it is not the folder of an evaluation" in capsys.readouterr().err
