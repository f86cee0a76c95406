"""`sgsd skills …`: from nothing to a bank, and what is wrong told in a sentence."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgsd_lightning.cli import main
from sgsd_lightning.skills import SkillBank
from sgsd_lightning.skills.growth.memories import load_memories
from tests.support.misbehaving_server import serving
from tests.support.tiny_runs import start_command

BANK = {
    "general_skills": [
        {"skill_id": f"gen_00{n}", "title": f"T{n}", "principle": f"about {word}", "when_to_apply": "W"}
        for n, word in enumerate(["apples", "bridges", "clouds"])
    ],
    "common_mistakes": [
        {"mistake_id": f"err_00{n}", "description": f"forgot {word}", "why_it_happens": "Y", "how_to_avoid": "H"}
        for n, word in enumerate(["apples", "bridges", "clouds"])
    ],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a bank and a configuration over the toy world's problems and a tiny random model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bank.json").write_text(json.dumps(BANK))
    problems = [{"id": f"p{n}", "problem": f"{n} + {n} * 2", "answer": str(3 * n)} for n in range(12)]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)) + "\n")
    (tmp_path / "evaluation.jsonl").write_text(json.dumps({"id": "e", "problem": "3 + 3  * 2", "answer": "9"}) + "\n")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration()))
    return tmp_path


def configuration() -> dict[str, Any]:
    policy = {"hidden_size": 32, "num_layers": 1, "intermediate_size": 64}
    parts = {
        "policy": {"class_path": "sgsd_lightning.policy.RandomPolicy", "init_args": policy},
        "contexts": {"class_path": "sgsd_lightning.contexts.SkillPairs", "init_args": {"bank": "not yet there.json"}},
        "objective": {"class_path": "sgsd_lightning.objectives.GatedPolarity"},
        "verifier": {
            "class_path": "sgsd_lightning.verifiers.MathAnswer",
            "init_args": {"truncated_rollouts": "failure"},
        },
        "rollouts": {
            "class_path": "sgsd_lightning.rollouts.SingleTurn",
            "init_args": {"sampling": {"max_new_tokens": 8}},
        },
    }
    source = {"class_path": "sgsd_lightning.data.JsonlProblems", "init_args": {"path": "problems.jsonl"}}
    trainer = {"accelerator": "cpu", "devices": 1, "default_root_dir": "run"}
    return {
        "seed_everything": 1,
        "trainer": trainer,
        "model": {"class_path": "sgsd_lightning.module.SelfDistillation", "init_args": parts},
        "data": {"class_path": "sgsd_lightning.data.ProblemDataModule", "init_args": {"train": source}},
    }


def memories_file(folder: Path, num: int = 4) -> Path:
    """Memories of a solver of the toy world, right and wrong in turn."""
    lines = []
    for n in range(num):
        right = n % 2 == 0
        completion = "3 * 2 = 6\n1 + 6 = 7\n\\boxed{7}" if right else "1 + 3 = 4\n4 * 2 = 8\n\\boxed{8}"
        fields = {"memory_id": f"m{n}", "problem_id": f"p{n}", "problem": "1 + 3 * 2", "reference_answer": "7"}
        judged = {"answer": None, "reward": float(right), "outcome": 1 if right else -1, "finish_reason": "stopped"}
        lines.append(json.dumps({**fields, "completion": completion, **judged}) + "\n")
    path = folder / "memories.jsonl"
    path.write_text("".join(lines))
    return path


def collect(*arguments: str) -> int:
    return main(["skills", "collect", "--config", "config.yaml", "--out", "collected.jsonl", *arguments])


def test_collecting_again_goes_on_where_it_stopped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect("--samples=2") == 0
    whole = (folder / "collected.jsonl").read_text()
    assert [memory.memory_id for memory in load_memories("collected.jsonl")][:3] == ["p0#0", "p0#1", "p1#0"]
    assert len(whole.splitlines()) == 24
    assert "0 successes, 24 failures" in capsys.readouterr().out
    (folder / "collected.jsonl").write_text(whole[: len(whole) // 3])  # in the middle of a line
    assert collect("--samples=2") == 0
    assert (folder / "collected.jsonl").read_text() == whole
    assert collect("--samples=2") == 0
    assert "it was complete already" in capsys.readouterr().out
    assert collect("--samples=1") == 2
    assert "'p0#1' that this collection does not make" in capsys.readouterr().err


def test_collecting_leaves_evaluation_problems_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect("--evaluation+=evaluation.jsonl", "--limit=6") == 0
    assert "left out 1 of 12 training problems" in capsys.readouterr().out
    problems = [memory.problem_id for memory in load_memories("collected.jsonl")]
    assert problems == ["p0", "p1", "p2", "p4", "p5", "p6"]
    assert collect("--evaluation+=problems.jsonl") == 2
    assert "all 12 training problems are evaluation problems" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect("--dry_run=true", "--limit=5", "--samples=3") == 0
    memories_file(folder)
    arguments = ["--memories=memories.jsonl", "--out=c.json", "--dry_run=true"]
    assert main(["skills", "extract", *arguments, "--writer=ConventionWriter"]) == 0
    assert main(["skills", "merge", "--candidates=bank.json", "--out=b.json", "--dry_run=true"]) == 0
    told = capsys.readouterr().out
    assert "would sample 15 trajectories of 5 problems" in told
    assert "would ask about 4 memories" in told
    assert not [path for path in folder.iterdir() if path.name.startswith(("c.json", "b.json", "collected"))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples=0"], "--samples must be at least 1; got 0"),
        (["--limit=0"], "--limit must be at least 1; got 0"),
        (["--trainer.devices=2"], "runs in one process; set --trainer.devices=1"),
    ],
)
def test_collecting_refuses_what_it_cannot_do(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(*arguments) == 2
    assert message in capsys.readouterr().err


def extract(*arguments: str) -> int:
    return main(["skills", "extract", "--memories=memories.jsonl", "--out=candidates.json", *arguments])


def test_from_memories_to_a_bank_that_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memories_file(folder, 6)
    assert extract("--writer=ConventionWriter") == 0
    candidates = SkillBank.load("candidates.json")
    assert [skill.skill_id for skill in candidates.general_skills] == [f"gen_cand_00000{n}" for n in (1, 2, 3)]
    assert [mistake.extra["sources"] for mistake in candidates.common_mistakes] == [["m1"], ["m3"], ["m5"]]
    assert candidates.metadata["num_successes"] == 3
    assert main(["skills", "merge", "--candidates=candidates.json", "--out=new.json"]) == 0
    bank = SkillBank.load("new.json")
    assert {source for skill in bank.general_skills for source in skill.extra["sources"]} == {"m0", "m2", "m4"}
    assert main(["skills", "validate", "new.json"]) == 0
    capsys.readouterr()
    assert main(["skills", "search", "new.json", "1 + 3 * 2", "--num=1"]) == 0
    assert bank.general_skills[0].title in capsys.readouterr().out
    assert main(["skills", "show", "new.json", "--kind=skills"]) == 0
    assert "gen_001" in capsys.readouterr().out


def test_extracting_again_asks_only_about_what_was_not_answered(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memories_file(folder, 6)
    with serving() as (url, record):
        model = ["--writer=LanguageModelWriter", "--writer.language_model=EndpointModel"]
        model += [f"--writer.language_model.base_url={url}", "--writer.language_model.model_name=m"]
        assert extract(*model, "--limit=4") == 0
        assert len(record.prompts) == 4
        # the server repeats the prompt, whose example it takes for an item: useless, but an answer
        assert "4 memories" in capsys.readouterr().out
        assert extract(*model) == 0
        assert len(record.prompts) == 6
    assert len(SkillBank.load("candidates.json").items) == 6
    assert extract(*model, "--limit=5") == 2
    assert "'m5', which is not among those given" in capsys.readouterr().err


def test_a_cache_answers_an_extraction_that_begins_anew(folder: Path) -> None:
    memories_file(folder, 3)
    with serving() as (url, record):
        cached = "--writer.language_model.model"
        model = ["--writer=LanguageModelWriter", "--writer.language_model=CachedModel"]
        model += ["--writer.language_model.path=answers.jsonl", f"{cached}=EndpointModel"]
        model += [f"{cached}.base_url={url}", f"{cached}.model_name=m"]
        assert extract(*model) == 0
        num_calls = len(record.prompts)
        (folder / "candidates.json.progress.jsonl").unlink()
        assert extract(*model) == 0
        assert len(record.prompts) == num_calls
    # a call per prompt, of which equal memories have the same
    assert len((folder / "answers.jsonl").read_text().splitlines()) == num_calls == len(set(record.prompts))


def test_an_endpoint_that_is_not_there_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memories_file(folder)
    model = ["--writer=LanguageModelWriter", "--writer.language_model=EndpointModel"]
    model += ["--writer.language_model.base_url=http://127.0.0.1:9/v1", "--writer.language_model.model_name=m"]
    assert extract(*model, "--writer.language_model.max_retries=0") == 1
    assert "http://127.0.0.1:9/v1 cannot be reached" in capsys.readouterr().err


def test_an_interrupted_extraction_keeps_what_was_answered(folder: Path) -> None:
    memories_file(folder, 30)
    command = ["skills", "extract", "--memories=memories.jsonl", "--out=candidates.json"]
    started = start_command(folder, [*command, "--writer=tests.support.slow_writer.SlowWriter"])
    (process,) = started.processes
    progress = folder / "candidates.json.progress.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and (not progress.exists() or progress.read_text().count("\n") < 3):
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert started.wait() == [130], started.said()
    assert "Traceback" not in started.said()
    num_done = progress.read_text().count("\n")
    assert 3 <= num_done < 30
    assert not (folder / "candidates.json").exists()
    assert extract("--writer=tests.support.slow_writer.SlowWriter", "--writer.seconds=0") == 0
    asked = (folder / "asked.txt").read_text().split()
    assert len(asked) <= 30 + 1
    assert len(SkillBank.load("candidates.json").general_skills) == 15


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nothing"], 2, "no command 'nothing'; there are collect, extract"),
        (["show", "nowhere.json"], 2, "skill bank nowhere.json does not exist"),
        (["diff", "bank.json", "nowhere.json"], 2, "skill bank nowhere.json does not exist"),
        (["extract", "--memories=no.jsonl", "--out=o", "--writer=ConventionWriter"], 2, "no.jsonl does not exist"),
        (["merge", "--candidates=no.json", "--out=o"], 2, "no.json does not exist"),
        (["audit", "."], 2, "neither a checkpoint nor the folder of a run"),
        (["prune", "bank.json", "--audit=a.csv"], 2, "needs a bound"),
        (["prune", "bank.json", "--audit=a.csv", "--misleading-above=0.5"], 2, "audit file a.csv does not exist"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], status: int, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["skills", *arguments]) == status
    assert message in capsys.readouterr().err


def test_an_unknown_writer_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memories_file(folder)
    with pytest.raises(SystemExit, match="2"):
        extract("--writer=Nobody")
    assert "Nobody" in capsys.readouterr().err


def test_a_malformed_memory_is_named_by_line_and_field(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = memories_file(folder)
    path.write_text(path.read_text().replace('"outcome": -1', '"outcome": 3', 1))
    assert extract("--writer=ConventionWriter") == 2
    assert "memories.jsonl:2: the field 'outcome' must be 1 or -1; got 3" in capsys.readouterr().err


def test_validate_tells_everything_and_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = json.loads(json.dumps(BANK))
    del broken["general_skills"][0]["title"]
    broken["common_mistakes"][1]["how_to_avoid"] = " "
    (folder / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(SystemExit, match="1"):
        main(["skills", "validate", "broken.json"])
    told = capsys.readouterr().out
    assert "gen_000" in told
    assert "title" in told
    assert "how_to_avoid" in told
    assert "2 errors" in told


def test_diff_says_what_came_went_and_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = json.loads(json.dumps(BANK))
    changed["general_skills"][0]["title"] = "[bold]Better"
    changed["common_mistakes"].pop()
    changed["common_mistakes"].append({**BANK["common_mistakes"][0], "mistake_id": "dyn_001"})
    (folder / "new.json").write_text(json.dumps(changed))
    assert main(["skills", "diff", "bank.json", "new.json"]) == 0
    told = capsys.readouterr().out
    assert "~ gen_000: [bold]Better" in told
    assert "title: T0 -> [bold]Better" in told
    assert "+ dyn_001" in told
    assert "- err_002" in told
    assert main(["skills", "diff", "bank.json", "bank.json"]) == 0
    assert "the banks are the same" in capsys.readouterr().out


def test_the_beginning_of_an_option_does_not_stand_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["skills", "extract", "--memor=memories.jsonl"])
    assert stop.value.code == 2
    assert "--memor=" in capsys.readouterr().err


def test_collecting_says_which_policy_it_samples(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="sgsd_lightning"):
        assert collect("--limit=1") == 0
    assert "reads no checkpoint: the policy as it is before training" in caplog.text
