"""The plan goes on past every failure, within its time, and writes what it found after every step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks.first_contact import attempts
from benchmarks.first_contact.__main__ import main
from benchmarks.first_contact.attempts import ROOT, Attempt, attempt
from benchmarks.first_contact.contact import Entry, go_through, verdict_of
from benchmarks.first_contact.failures import cause_of
from benchmarks.first_contact.page import as_json, as_markdown
from benchmarks.first_contact.plan import COLD_START_SECONDS, PLAN, Step, seconds_for
from benchmarks.first_contact.verdict import Found, Need, Verdict


def judge(found: Found) -> Verdict:
    """What the measurements of these tests carry."""
    return Verdict(**found["verdict"]) if "verdict" in found else Verdict("skipped", "Nothing was measured.")


def step(number: str, seconds: float = 10.0, *needs: Need) -> Step:
    return Step(number, f"probe{number}", f"step {number}", seconds, judge, "set it to off", needs)


def measured(outcome: str = "good", ending: Any = "finished", seconds: float = 1.0, **verdict: Any) -> Attempt:
    found = {"verdict": {"outcome": outcome, "sentence": f"It is {outcome}.", **verdict}, "at": "case 3"}
    return Attempt(ending, seconds, found, int(ending == "crashed"), "RuntimeError: an illegal memory access was met")


class Runs:
    """Attempts by the step's number, and a clock that they move."""

    def __init__(self, **attempts: Attempt) -> None:
        self._attempts = attempts
        self.now = 0.0
        self.seen: list[tuple[str, float, dict[str, str]]] = []

    def __call__(self, step: Step, seconds: float, environment: Mapping[str, str]) -> Attempt:
        self.seen.append((step.number, seconds, dict(environment)))
        found = self._attempts.get(f"s{step.number}", measured())
        self.now += found.seconds
        return found

    def through(self, *steps: Step, minutes: float = 10.0) -> list[Entry]:
        return go_through(steps, minutes, self, lambda entries: None, lambda: self.now)


class TestGoThrough:
    def test_a_crash_and_a_timeout_end_their_steps_alone(self) -> None:
        runs = Runs(s1=measured("bad", "crashed"), s2=measured("good", "timed out"))
        entries = runs.through(step("1"), step("2"), step("3"))
        assert [entry.verdict.outcome for entry in entries] == ["bad", "skipped", "good"]

    def test_what_a_step_sets_holds_for_those_after_it(self) -> None:
        runs = Runs(s1=measured(environment={"A": "1"}), s2=measured(environment={"A": "2", "B": "3"}))
        runs.through(step("1"), step("2"), step("3"))
        assert [environment for _, _, environment in runs.seen] == [{}, {"A": "1"}, {"A": "2", "B": "3"}]

    def test_steps_without_what_they_need_are_skipped_with_the_reason(self) -> None:
        runs = Runs(s1=measured("bad", lacks={"compiler": "there is no gcc"}))
        entries = runs.through(step("1"), step("2", 10, "gpu", "compiler"), step("3", 10, "gpu"))
        assert [number for number, _, _ in runs.seen] == ["1", "3"]
        assert entries[1].verdict == Verdict("skipped", "Not tried: there is no gcc.")

    def test_what_stands_in_for_a_gpu_runs_where_there_is_none(self) -> None:
        steps = step("1"), step("2", 10, "gpu"), step("C", 10, "cpu only")
        with_gpu, without = Runs(), Runs(s1=measured(lacks={"gpu": "it needs a GPU"}))
        with_gpu.through(*steps)
        without.through(*steps)
        assert [number for number, _, _ in with_gpu.seen] == ["1", "2"]
        assert [number for number, _, _ in without.seen] == ["1", "C"]

    def test_the_last_steps_are_skipped_when_time_runs_out(self) -> None:
        runs = Runs(s1=measured(seconds=40.0), s2=measured(seconds=16.0))
        entries = runs.through(step("1", 40), step("2", 10), step("3", 10), minutes=1)
        assert [number for number, _, _ in runs.seen] == ["1", "2"]
        assert "of its 10 s less than half were left" in entries[2].verdict.sentence

    def test_the_report_is_made_after_every_step(self) -> None:
        counts: list[int] = []
        go_through([step("1"), step("2")], 1, Runs(), lambda entries: counts.append(len(entries)), lambda: 0.0)
        assert counts == [1, 2]


class TestSeconds:
    def test_time_that_is_left_over_is_shared_evenly(self) -> None:
        assert seconds_for(step("1", 100), [step("2", 300)], 800) == 200

    def test_a_step_keeps_its_time_and_that_of_a_cold_start_at_the_cost_of_later_ones(self) -> None:
        assert seconds_for(step("1", 100), [step("2", 300)], 200) == 100 + COLD_START_SECONDS

    def test_no_step_has_more_than_is_left_and_none_begins_with_less_than_half(self) -> None:
        assert seconds_for(step("1", 10), [], 6) == 6
        assert seconds_for(step("1", 10), [], 4.9) is None

    def test_the_ten_steps_fit_into_ten_minutes(self) -> None:
        on_a_gpu = [step for step in PLAN if "cpu only" not in step.needs]
        assert sum(step.seconds for step in on_a_gpu) <= 600
        assert list(dict.fromkeys(step.number.rstrip("ab") for step in on_a_gpu)) == [str(n) for n in range(1, 11)]


class TestVerdictOf:
    def test_a_crash_says_where_by_what_and_what_follows(self) -> None:
        found = verdict_of(step("1"), measured("act", "crashed"))
        assert found.outcome == "bad"
        assert found.sentence == (
            "It crashed at case 3 by a CUDA fault (illegal memory access): set it to off; until then: It is act."
        )

    def test_a_timeout_keeps_what_was_found_to_be_wrong(self) -> None:
        verdict = verdict_of(step("1"), measured("bad", "timed out", 12.0, environment={"A": "1"}))
        assert (verdict.outcome, verdict.environment) == ("bad", {"A": "1"})
        assert verdict.sentence == "It was still at case 3 after 12 s and was ended; until then: It is bad."

    def test_a_probe_that_ends_before_it_measured_says_no_more(self) -> None:
        attempt = Attempt("crashed", 1.0, {}, -11, "")
        assert verdict_of(step("1"), attempt).sentence == "It crashed at its start by signal SIGSEGV: set it to off."


@pytest.mark.parametrize(
    ("returncode", "output", "cause"),
    [
        (1, "...\nRuntimeError: CUDA error: an illegal memory access was encountered\n", "illegal memory access"),
        (1, "triton.runtime.errors.OutOfResources: out of resource: shared memory", "tile that this device"),
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried", "too little memory"),
        (1, "RuntimeError: Failed to find C compiler.", "could not build its launcher"),
        (1, "fatal error: Python.h: No such file or directory", "could not build its launcher"),
        (1, "ModuleNotFoundError: No module named 'jsonargparse'", "not installed (jsonargparse)"),
        (1, "Traceback ...\nValueError: first\nmore\nKeyError: 'second'\n", "KeyError: 'second'"),
        (-9, "", "signal SIGKILL"),
        (3, "nothing that is known", "exit status 3"),
    ],
)
def test_the_cause_of_a_crash_is_named(returncode: int, output: str, cause: str) -> None:
    assert cause in cause_of(returncode, output)


class TestAttempt:
    """Processes that are no probes, run as probes are."""

    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, seconds: float = 20.0) -> Attempt:
        (tmp_path / "stand_in.py").write_text("import json, os, sys, time, subprocess\nfile = sys.argv[2]\n" + code)
        monkeypatch.setattr(attempts, "PROBES", "stand_in")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return attempt("probe", tmp_path, seconds, {"COLOUR": "red"})

    def test_what_it_measured_and_printed_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        code = "print('said'); open(file, 'w').write(json.dumps({'colour': os.environ['COLOUR']}))"
        found = self.run(tmp_path, monkeypatch, code)
        assert (found.ending, found.found, found.tail) == ("finished", {"colour": "red"}, "said\n")

    def test_a_crash_keeps_what_was_measured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        code = "open(file, 'w').write('{\"at\": \"case 1\"}'); print('ValueError: no'); os.abort()"
        found = self.run(tmp_path, monkeypatch, code)
        assert (found.ending, found.at, found.returncode) == ("crashed", "case 1", -6)
        assert "ValueError: no" in found.tail

    def test_a_hang_is_ended_with_all_that_it_started(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        child = tmp_path / "child"
        code = f"""
started = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
open({str(child)!r}, "w").write(str(started.pid))
time.sleep(60)
"""
        start = time.monotonic()
        found = self.run(tmp_path, monkeypatch, code, seconds=0.7)
        assert found.ending == "timed out"
        assert time.monotonic() - start < 15
        deadline = time.monotonic() + 10
        while _is_running(int(child.read_text())):  # it was told to end, and takes its time on a busy machine
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_numbers_of_an_earlier_attempt_are_not_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "probe.json").write_text('{"old": 1}')
        assert self.run(tmp_path, monkeypatch, "raise SystemExit(3)").found == {}


def _is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie that nobody waited for."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


class TestPage:
    ORIGIN: ClassVar[dict[str, Any]] = {
        "device": "NVIDIA H100",
        "versions": {"torch": "2.11.0"},
        "date": "2026-11-26",
        "commit": "0123456789ab",
    }

    def found(self) -> dict[str, Any]:
        rows = [{"case": "a|b", "error": float("nan")}, {"case": "c", "ms": 1.23456}]
        first = Attempt("finished", 2.0, {"provenance": self.ORIGIN, "has_gpu": True})
        second = Attempt("crashed", 3.4, {"cases": rows, "names": ["x", "y"]}, 1, "line\nValueError: ```no```\n")
        entries = [
            Entry(step("1"), Verdict("good", "It is."), first),
            Entry(step("2"), Verdict("bad", "It is wrong.", {"A": "1"}), second),
            Entry(step("3"), Verdict("skipped", "Not tried: no time.")),
        ]
        return as_json("python -m benchmarks.first_contact", 10.0, entries)

    def test_the_json_is_strict_and_says_where_it_comes_from(self) -> None:
        found = json.loads(json.dumps(self.found(), allow_nan=False))
        assert (found["device"], found["date"], found["versions"]) == ("NVIDIA H100", "2026-11-26", {"torch": "2.11.0"})
        assert found["steps"][1]["found"]["cases"][0]["error"] == "nan"
        assert found["steps"][1]["environment"] == {"A": "1"}
        assert "tail" not in found["steps"][0]
        assert "found" not in found["steps"][2]

    def test_the_page_has_every_verdict_and_the_measurements_as_tables(self) -> None:
        page = as_markdown(self.found())
        assert "NVIDIA H100; torch 2.11.0; 2026-11-26; commit 0123456789;" in page
        assert "| 2    | step 2 | bad     | It is wrong." in page
        assert "| a\\|b | nan   |" in page
        assert "| 1.23 |" in page
        assert "names: x, y" in page
        assert "ValueError: '''no'''" in page
        assert "## 3." not in page


class TestCommand:
    def test_a_plan_is_run_and_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seen: list[str] = []

        def pretend(probe: str, folder: Path, seconds: float, environment: Mapping[str, str]) -> Attempt:
            seen.append(probe)
            return Attempt("finished", 1.0, {"has_gpu": False, "cuda": None} if probe == "machine" else {})

        monkeypatch.setattr("benchmarks.first_contact.__main__.attempt", pretend)
        assert main(["--minutes", "10", "--out", str(tmp_path / "out")]) == 0
        assert seen == ["machine", "loading", "kernel_values", "compiled"]
        found = json.loads((tmp_path / "out/first_contact.json").read_text())
        assert len(found["steps"]) == len(PLAN)
        assert "There is no GPU here" in (tmp_path / "out/first_contact.md").read_text()
        assert "There is no GPU here" in capsys.readouterr().out

    def test_chosen_steps_come_after_the_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[str] = []
        monkeypatch.setattr(
            "benchmarks.first_contact.__main__.attempt",
            lambda probe, *rest: seen.append(probe) or Attempt("crashed", 1.0, {}, 1),
        )
        assert main(["--only", "9,3", "--out", str(tmp_path)]) == 1
        assert seen == ["machine", "kernel_values"]  # what crashed at the first step is no GPU

    @pytest.mark.parametrize("minutes", ["0", "-1", "soon", "nan", "inf"])
    def test_a_time_that_is_none_is_refused(self, minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--minutes", minutes])
        assert f"'{minutes}' is no time; give minutes above 0" in capsys.readouterr().err

    def test_a_step_that_is_not_there_and_a_folder_that_cannot_be_are_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--only", "11", "--out", str(tmp_path)]) == 2
        assert "--only 11: there is no such step; there are 1, 2, 3, 4a" in capsys.readouterr().err
        (tmp_path / "file").touch()
        assert main(["--out", str(tmp_path / "file")]) == 2
        assert "cannot be written to" in capsys.readouterr().err

    def test_every_probe_is_there_and_the_plan_needs_no_torch(self) -> None:
        folder = ROOT / "benchmarks/first_contact/probes"
        assert all((folder / f"{step.probe}.py").exists() for step in PLAN)
        code = "import sys, benchmarks.first_contact.__main__; sys.exit('torch' in sys.modules)"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment).returncode == 0
