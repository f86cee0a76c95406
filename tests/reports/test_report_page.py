"""The report: what it shows, that model output stays text, and what it does where something is missing."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="the extra report is not installed")

from sgsd_lightning.cli import main
from sgsd_lightning.cli.report import run_names
from sgsd_lightning.reports.curves import smoothed
from sgsd_lightning.reports.page import render
from sgsd_lightning.reports.run_logs import read_curves, read_run, spread
from sgsd_lightning.reports.token_view import default_rollout, net_pull

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} <!-- & \u2028 $x$"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page(HTMLParser):
    """Elements, their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._is_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._is_script = tag == "script"
        if self._is_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._is_script = self._is_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._is_script:
            self.scripts[-1] += data
        else:
            self.texts.append(data)


def rollout(step: int, problem: str = "What is 1 + 1?", token: str = " 2", **teacher: Any) -> dict[str, Any]:
    first = {
        "sources": ["gen_1", "err_1"],
        "weight": 0.75,
        "stance_score": 0.4,
        "stance": 1,
        "polarity": 1,
        "text": "Skill: add",
        "log_ratio": [1.5, 0.0, -0.5],
        "gate": [0.9, 0.0, 0.5],
    }
    second = {
        **first,
        "weight": 0.25,
        "polarity": -1,
        "log_ratio": [-1.0, 0.0, 2.0],
        "gate": [1.0, 0.0, 0.2],
        **teacher,
    }
    return {
        "step": step,
        "problem_id": f"p{step}",
        "problem": problem,
        "reference_answer": "2",
        "completion": f"{token}\n",
        "finish_reason": "stopped",
        "answer": "2",
        "outcome": 1,
        "reward": 1.0,
        "tokens": [token, "\n", "<|im_end|>"],
        "loss_mask": [1, 0, 1],
        "student_logprob": [-0.1, -0.2, -0.3],
        "teachers": [first, second],
    }


def run_folder(path: Path, rollouts: list[dict[str, Any]] | None = None, **columns: list[float | str]) -> Path:
    """A folder as a run leaves it, without a checkpoint."""
    table = path / "metrics" / "version_0"
    table.mkdir(parents=True)
    columns = columns or {"rollout/reward_mean": [0.25, 0.5, 0.75], "val/avg@k": ["", 0.4, 0.6]}
    with (table / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *columns])
        writer.writerows([step, *row] for step, row in enumerate(zip(*columns.values(), strict=True)))
    if rollouts is not None:
        (path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rollouts), encoding="utf-8")
    return path


def data_of(page: Page) -> Any:
    return json.loads(next(script for script in page.scripts if script.lstrip().startswith("[")))


def test_what_a_model_wrote_is_text(tmp_path: Path) -> None:
    row = rollout(1, problem=HOSTILE, token=HOSTILE, text=HOSTILE)
    folder = run_folder(tmp_path / "run", [{**row, "answer": HOSTILE, "problem_id": HOSTILE}])
    page = Page(render([read_run(folder, HOSTILE, 24)]))
    assert [attributes.get("type") for tag, attributes in page.elements if tag == "script"] == [
        "application/json",
        None,
    ]
    assert not [tag for tag, _ in page.elements if tag == "img"]
    (found,) = data_of(page)
    assert found["rows"][0]["tokens"][0] == found["rows"][0]["problem"] == found["rows"][0]["answer"] == HOSTILE
    assert found["rows"][0]["teachers"][1]["text"] == found["run"] == HOSTILE
    assert any(HOSTILE in text for text in page.texts)
    assert "innerHTML" not in "".join(page.scripts)


def test_nothing_is_fetched_from_a_network(tmp_path: Path) -> None:
    text = render([read_run(run_folder(tmp_path / "run", [rollout(1)]), "run", 24)])
    loading = [
        value
        for _, attributes in Page(text).elements
        for name, value in attributes.items()
        if name in ("src", "href", "data", "action") and value and not value.startswith("#")
    ]
    assert loading == []
    assert not re.search(r"@import|url\(\s*['\"]?(?:https?:|//)|fetch\(|XMLHttpRequest", text)


def test_the_command_writes_a_page_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path / "run", [rollout(step) for step in (1, 2, 3)])
    assert main(["report", str(folder)]) == 0
    said = capsys.readouterr().out
    for name in ("report.html", "report_files/curves.png", "report_files/tokens.png"):
        assert (folder / name).stat().st_size > 1000
        assert name in said
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Accuracy on the validation problems" in text
    assert "Time of a step" not in text
    assert 'id="evidence"' not in text


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / name / "run", [rollout(1)]) for name in ("one", "two")]
    assert run_names(folders) == ["one/run", "two/run"]
    out = tmp_path / "both.html"
    assert main(["report", *map(str, folders), f"--out={out}"]) == 0
    page = Page(out.read_text(encoding="utf-8"))
    assert [run["run"] for run in data_of(page)] == ["one/run", "two/run"]
    assert sum("one/run: avg@k" in text for text in page.texts) == 1
    assert (tmp_path / "both_files" / "tokens-two-run.png").is_file()


def test_a_run_that_goes_on_can_be_read(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", [rollout(2), {"step": 1, "teachers": []}])
    with (folder / "rollouts.jsonl").open("a") as file:
        file.write(json.dumps(rollout(3))[:200])
    (folder / "rollouts-rank1.jsonl").write_text(json.dumps(rollout(1)) + "\n")
    with (folder / "metrics/version_0/metrics.csv").open("a") as file:
        file.write("3,0.")
    run = read_run(folder, "run", 24)
    assert [row["step"] for row in run.rollouts] == [1, 2]
    assert run.curves["val/avg@k"] == [(2, 0.4), (3, 0.6)]


def test_without_rollouts_or_validation_the_page_says_less(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", None, **{"objective/loss": [1.0, float("nan"), 0.5]})
    text = render([read_run(folder, "run", 24)])
    assert 'id="tokens"' not in text
    assert "Loss" in text
    assert read_run(folder, "run", 24).curves["objective/loss"] == [(1, 1.0), (3, 0.5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such run folder"),
        (["."], "is not the folder of a run: it has no metrics/version_"),
        (["run", "run"], "a run is named twice"),
        (["run", "--rollouts=-1"], "--rollouts must be 0 or more; got -1"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "run")
    assert main(["report", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_net_pull_is_the_sign_and_share_of_the_gradient() -> None:
    row = rollout(1)
    assert net_pull(row) == pytest.approx([0.75 * 0.9 + 0.25 * 1.0, 0.0, -0.75 * 0.5 - 0.25 * 0.2])
    row["teachers"][0].pop("gate")
    assert net_pull(row) is None
    assert net_pull({**row, "teachers": []}) is None


def test_few_rollouts_are_spread_over_many() -> None:
    rows = [{"step": step} for step in range(100)]
    chosen = [row["step"] for row in spread(rows, 5)]
    assert chosen == [0, 25, 50, 74, 99]
    assert spread(rows[:3], 5) == rows[:3]
    assert spread(rows, 1) == [{"step": 99}]
    assert spread(rows, 0) == []


def test_the_rollout_shown_first_has_something_to_say() -> None:
    quiet = rollout(3, polarity=0)
    quiet["teachers"][0]["polarity"] = 0
    assert default_rollout([rollout(1), rollout(2), quiet])["step"] == 2  # type: ignore[index]
    assert default_rollout([quiet]) is quiet
    assert default_rollout([]) is None


def test_smoothing_keeps_a_line_and_the_ends() -> None:
    line = [(step, 2.0 * step) for step in range(1, 101)]
    assert [step for step, _ in smoothed(line)] == [step for step, _ in line]
    assert [value for _, value in smoothed(line)] == pytest.approx([value for _, value in line])
    assert read_curves([]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_a_browser_shows_it_without_errors(width: int, scheme: str, tmp_path: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    folder = run_folder(tmp_path / "run", [rollout(step, token=HOSTILE) for step in range(1, 30)])
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    watch = "<script>window.faults = []; addEventListener('error', (event) => faults.push(event.message));</script>"
    tell = (
        "<script>addEventListener('load', () => Object.assign(document.body.dataset, {faults: faults.length, "
        "overflow: document.documentElement.scrollWidth - innerWidth, teachers: document.querySelectorAll("
        "'#teachers tbody tr').length, shown: document.querySelector('#completion span').textContent}));</script>"
    )
    (tmp_path / "watched.html").write_text(
        text.replace("<head>", f"<head>{watch}").replace("</body>", f"{tell}</body>"), encoding="utf-8"
    )
    common = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={width},2400",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    page = (tmp_path / "watched.html").as_uri()
    subprocess.run(
        [*common, f"--screenshot={tmp_path / 'page.png'}", page], check=True, timeout=120, capture_output=True
    )
    assert (tmp_path / "page.png").stat().st_size > 20_000
    dumped = subprocess.run([*common, "--dump-dom", page], check=True, timeout=120, capture_output=True, text=True)
    body = next(attributes for tag, attributes in Page(dumped.stdout).elements if tag == "body")
    assert body["data-faults"] == "0"
    assert int(body["data-overflow"] or 1) <= 0
    assert body["data-teachers"] == "3"  # both, and all together
    assert body["data-shown"] == HOSTILE
