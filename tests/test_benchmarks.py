"""The benchmarks' harness: what it refuses, what it counts, and that every benchmark runs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from sgsd_kernels.gate.reference import gated_polarity_loss
from sgsd_kernels.head import reference as definitions

from benchmarks import accuracy, exact, linear_divergence, local_support, tables
from benchmarks.cases import FORWARD, FROZEN, MODES, TRAINED, Inputs, Mode, Size, full_sizes, make_inputs
from benchmarks.command_line import main
from benchmarks.gated_head import AUTHORS, TRAINER, GatedHead
from benchmarks.goals import LARGEST, NOT_MEASURED, STATED_FOR, goals_table
from benchmarks.harness import Row, Settings, Tolerance, Workload, measure
from benchmarks.linear_divergence import LinearDivergence
from benchmarks.linear_logprob import LinearLogprob
from benchmarks.local_support import LocalSupport
from benchmarks.memory import workspace_bytes
from benchmarks.providers import Answer, Provider, Question, Run, errors_of
from benchmarks.timing import Spread, time_runs

CPU = torch.device("cpu")
TINY = Size(tokens=6, teachers=2, width=8, vocabulary=37)
QUICK = Settings(device=CPU, seconds=0.0, repeats=2)


class Doubling(Workload):
    """Twice the student's hidden states; its providers are handed in."""

    name = "doubling"
    tolerance: ClassVar[Tolerance] = {"doubled": {"float32": 1e-3, "bfloat16": 1.0}}

    def __init__(self, *providers: Provider) -> None:
        self._providers = list(providers)

    def sizes(self) -> list[Size]:
        return [TINY]

    def modes(self, size: Size) -> Sequence[Mode]:
        return [FORWARD]

    def required_flops(self, size: Size, mode: Mode) -> int:
        return 1000

    def product_rows(self, size: Size, mode: Mode) -> int:
        return size.tokens

    def reference(self, inputs: Inputs, mode: Mode, question: Question, dtype: torch.dtype) -> Answer:
        return {"doubled": 2 * inputs.student_hidden.to(dtype)}

    def providers(self) -> list[Provider]:
        return self._providers


class Counted:
    """A provider that multiplies by ``factor`` and counts how often it ran."""

    def __init__(self, factor: float = 2.0, error: Exception | None = None) -> None:
        self.calls = 0
        self._factor = factor
        self._error = error

    def __call__(self, inputs: Inputs, mode: Mode) -> Run:
        def run() -> Answer:
            self.calls += 1
            if self._error is not None:
                raise self._error
            return {"doubled": self._factor * inputs.student_hidden.float()}

        return run


def rows_of(workload: Workload, settings: Settings = QUICK) -> dict[str, Row]:
    return {row.provider: row for case in measure(workload, [TINY], settings) for row in case}


class TestHarness:
    def test_a_right_provider_is_timed_with_its_error_rate_and_workspace(self) -> None:
        right = Counted()
        row = rows_of(Doubling(Provider("right", right)))["right"]
        assert row.status == "measured"
        assert row.errors["doubled"] <= 1e-3
        assert row.milliseconds is not None
        assert row.flops_per_second == pytest.approx(1000 / (1e-3 * row.milliseconds.median))
        # the float32 copy and the doubled one, and a few bytes for the factor
        assert row.workspace_bytes == pytest.approx(TINY.tokens * TINY.width * 4 * 2, abs=64)
        assert right.calls > 3

    def test_a_wrong_provider_is_run_once_and_never_timed(self) -> None:
        wrong, right = Counted(factor=2.5), Counted()
        rows = rows_of(Doubling(Provider("wrong", wrong), Provider("right", right)))
        assert rows["wrong"].status == "wrong"
        assert rows["wrong"].milliseconds is None
        assert "doubled is off by" in rows["wrong"].reason
        assert wrong.calls == 1
        assert rows["right"].status == "measured"

    def test_not_a_number_is_wrong(self) -> None:
        assert rows_of(Doubling(Provider("nan", Counted(factor=float("nan")))))["nan"].status == "wrong"

    def test_a_provider_that_promises_rounding_is_allowed_a_larger_error(self) -> None:
        rounded = Provider("rounded", Counted(factor=2.0 + 2e-3), precision="bfloat16")
        exact_one = Provider("exact", Counted(factor=2.0 + 2e-3))
        rows = rows_of(Doubling(rounded, exact_one))
        assert (rows["rounded"].status, rows["exact"].status) == ("measured", "wrong")

    def test_an_unavailable_provider_is_a_row_with_its_reason(self) -> None:
        absent = Counted()
        row = rows_of(Doubling(Provider("absent", absent, why_unavailable=lambda device: "it is not installed")))
        assert (row["absent"].status, row["absent"].reason) == ("unavailable", "it is not installed")
        assert absent.calls == 0

    def test_a_provider_may_decline_a_size(self) -> None:
        def build(inputs: Inputs, mode: Mode) -> Run:
            raise NotImplementedError("it takes one teacher")

        row = rows_of(Doubling(Provider("choosy", build)))["choosy"]
        assert (row.status, row.reason) == ("unavailable", "it takes one teacher")

    def test_running_out_of_memory_is_a_row_and_the_next_provider_is_measured(self) -> None:
        hungry = Counted(error=torch.OutOfMemoryError("tried to allocate 200 GiB"))
        rows = rows_of(Doubling(Provider("hungry", hungry), Provider("modest", Counted())))
        assert (rows["hungry"].status, rows["modest"].status) == ("out of memory", "measured")
        assert rows["hungry"].reason == "tried to allocate 200 GiB"

    def test_any_other_error_is_a_row_that_names_it(self) -> None:
        row = rows_of(Doubling(Provider("broken", Counted(error=RuntimeError("no kernel\nfor this")))))["broken"]
        assert (row.status, row.reason) == ("failed", "RuntimeError: no kernel")

    def test_after_the_deadline_providers_are_skipped_and_say_so(self) -> None:
        late = Settings(device=CPU, repeats=1, deadline=time.monotonic() - 1)
        row = rows_of(Doubling(Provider("late", Counted())), late)["late"]
        assert (row.status, row.reason) == ("skipped", "the time budget was used up")

    def test_only_the_providers_that_were_asked_for_run(self) -> None:
        settings = Settings(device=CPU, repeats=1, only=("left",))
        assert list(rows_of(Doubling(Provider("left", Counted()), Provider("right", Counted())), settings)) == ["left"]


class TestFlops:
    SIZE = Size(tokens=10, teachers=3, width=7, vocabulary=11)
    PRODUCT = 2 * 10 * 7 * 11

    @pytest.mark.parametrize(("mode", "products"), [(FORWARD, 4), (FROZEN, 5), (TRAINED, 6)])
    def test_the_gated_head_needs_a_product_per_context_and_one_per_gradient(self, mode: Mode, products: int) -> None:
        assert GatedHead().required_flops(self.SIZE, mode) == products * self.PRODUCT

    @pytest.mark.parametrize(("mode", "products"), [(FORWARD, 4), (FROZEN, 2), (TRAINED, 3)])
    def test_log_probabilities_go_backward_for_the_student_alone(self, mode: Mode, products: int) -> None:
        assert LinearLogprob().required_flops(self.SIZE, mode) == products * self.PRODUCT

    @pytest.mark.parametrize(("mode", "products"), [(FORWARD, 4), (FROZEN, 5), (TRAINED, 6)])
    def test_a_divergence_needs_a_product_per_teacher(self, mode: Mode, products: int) -> None:
        assert LinearDivergence("forward_kl").required_flops(self.SIZE, mode) == products * self.PRODUCT

    @pytest.mark.parametrize(("mode", "passes"), [(FORWARD, 1), (FROZEN, 2), (TRAINED, 3)])
    def test_on_a_local_support_the_student_needs_33_rows_of_the_head(self, mode: Mode, passes: int) -> None:
        on_support = 2 * 10 * 3 * 33 * 7
        assert LocalSupport().required_flops(self.SIZE, mode) == 3 * self.PRODUCT + passes * on_support


class TestMeasures:
    def test_gradients_are_judged_by_relative_l2_and_the_rest_by_the_largest_error(self) -> None:
        truth = {"logprob": torch.tensor([1.0, 2.0]), "grad_hidden": torch.tensor([3.0, 4.0])}
        found = {"logprob": torch.tensor([1.5, 2.25]), "grad_hidden": torch.tensor([3.0, 4.5])}
        assert errors_of(found, truth) == pytest.approx({"logprob": 0.5, "grad_hidden": 0.1})

    def test_an_answer_of_another_shape_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"logprob must have the shape \[2\]; the provider returned \[1\]"):
            errors_of({"logprob": torch.zeros(1)}, {"logprob": torch.zeros(2)})

    def test_a_spread_holds_the_median_and_two_quantiles(self) -> None:
        spread = Spread.of([float(value) for value in range(11)])
        assert (spread.median, spread.p20, spread.p80, spread.repeats) == (5, 2, 8, 11)

    def test_providers_take_turns_on_a_cpu(self) -> None:
        calls: list[str] = []
        time_runs({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU, seconds=0.0, repeats=2)
        assert calls == ["a", "b"] * 3

    def test_workspace_is_the_peak_without_the_returned_gradients(self) -> None:
        def run() -> Answer:
            scratch = torch.ones(1000)
            del scratch
            return {"grad_hidden": torch.ones(600), "logprob": torch.ones(100)}

        assert workspace_bytes(run, CPU) == pytest.approx(400, abs=2000)
        assert workspace_bytes(lambda: {"logprob": torch.ones(5000)}, CPU) == 20000

    @pytest.mark.parametrize("text", ["1024", "1024x8", "1024x8x2048x", "ax8x2048", "1x1x1x1x1"])
    def test_a_size_that_cannot_be_read_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="a size must read TxKxD"):
            Size.parse(text)

    def test_the_full_run_begins_with_the_size_that_the_goals_are_stated_for(self) -> None:
        sizes = full_sizes()
        assert sizes[0] == STATED_FOR
        assert LARGEST in sizes[:3]
        assert len(set(sizes)) == 27


class TestReferences:
    """The benchmarks' truth beside the definitions of sgsd_kernels, which it shares nothing with."""

    @pytest.fixture
    def inputs(self) -> Inputs:
        return make_inputs(TINY, CPU, torch.float64)

    def test_log_probabilities_and_gradients(self, inputs: Inputs) -> None:
        hidden = inputs.student_hidden.clone().requires_grad_()
        weight = inputs.weight.clone().requires_grad_()
        expected = definitions.linear_logprob(hidden, weight, inputs.targets).logprob
        expected_gradients = torch.autograd.grad(expected, [hidden, weight], inputs.upstream.double())
        torch.testing.assert_close(exact.row_logprob(hidden, weight, inputs.targets), expected.detach())
        found = exact.row_gradients(hidden.detach(), weight.detach(), inputs.targets, inputs.upstream, True)
        torch.testing.assert_close(found, expected_gradients)

    @pytest.mark.parametrize("top_k", [-1, local_support.SUPPORT_TOP_K])
    def test_the_gated_loss(self, inputs: Inputs, top_k: int) -> None:
        student_logits = definitions.head_logits(inputs.student_hidden, inputs.weight)
        teacher_logits = definitions.head_logits(inputs.teacher_hidden, inputs.weight)
        expected = gated_polarity_loss(
            student_logits[None],
            teacher_logits[None],
            inputs.targets[None],
            inputs.loss_mask[None],
            inputs.context_weight.double(),
            inputs.outcome,
            gate_temperature=1.0,
            log_ratio_clip=3.0,
            stance_threshold=0.05,
            support_top_k=top_k,
        )
        workload = GatedHead() if top_k < 0 else LocalSupport()
        found = workload.reference(inputs, FORWARD, "rows", torch.float64)
        torch.testing.assert_close(found["loss"], expected.loss)
        torch.testing.assert_close(found["stance_score"], expected.stance_score)

    def test_every_stance_is_far_from_its_threshold(self) -> None:
        inputs = make_inputs(Size(tokens=64, teachers=4, width=64, vocabulary=2003), CPU, torch.bfloat16)
        score = GatedHead().reference(inputs, FORWARD, "rows", torch.float64)["stance_score"]
        assert score.abs().min() > 0.15
        assert (score.sign() == torch.tensor([1, -1, 1, -1])).all()


BENCHMARKS = {
    "gated_head": [GatedHead()],
    "linear_logprob": [LinearLogprob()],
    "linear_divergence": linear_divergence.WORKLOADS,
    "local_support": [LocalSupport()],
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs_on_tiny_sizes_and_saves_its_rows(name: str, tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--sizes", "6x2x8x37", "--seconds", "0.001", "--out", str(tmp_path)]
    arguments += ["--providers", "reference", "chunked", "eager"]
    assert main(BENCHMARKS[name], f"benchmarks.{name}", arguments) == 0
    for workload in BENCHMARKS[name]:
        found = json.loads((tmp_path / f"{workload.name}.json").read_text())
        assert {row["mode"] for row in found["rows"]} == set(MODES)
        statuses = {(row["provider"], row["status"]) for row in found["rows"]}
        assert ("sgsd_kernels chunked", "measured") in statuses
        assert {provider for provider, status in statuses if status == "measured" and "eager" in provider}
        assert not [row for row in found["rows"] if row["status"] in ("wrong", "failed")]
        assert found["auto"]["linear_logprob"] == "chunked"
        assert found["versions"]["torch"] == torch.__version__
        assert workload.name in (tmp_path / f"{workload.name}.md").read_text()
        assert (tmp_path / f"{workload.name}.png").stat().st_size > 1000


def test_the_accuracy_table_shows_rounded_logits_to_be_the_larger_error(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    assert accuracy.main(["--device", "cpu", "--size", "16x2x32x999", "--out", str(path)]) == 0
    found = json.loads(path.read_text())
    for head in found["heads"]:
        rows = {row["who"]: row for row in head["rows"]}
        assert rows["sgsd_kernels chunked"]["log_ratio_max"] < 1e-5
        assert rows["bfloat16 logits, bfloat16 log-softmax (the authors)"]["log_ratio_max"] > 1e-3
    assert "sgsd_kernels chunked" in accuracy.table(found)


class TestTables:
    def test_the_committed_tables_are_what_the_result_files_say(self) -> None:
        assert tables.main(["--check"]) == 0

    def test_a_marker_without_a_table_is_refused(self) -> None:
        with pytest.raises(ValueError, match="marks a table 'nothing'"):
            tables.filled("<!-- begin nothing -->\n<!-- end nothing -->")

    @pytest.mark.parametrize("name", ["train_step", "rollouts", "accuracy"])
    def test_what_no_gpu_has_measured_says_so(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copy(tables.RESULTS / f"{name}_cpu.json", tmp_path)
        monkeypatch.setattr(tables, "RESULTS", tmp_path)
        shown = tables.TABLES[name.replace("_", " ")]()
        assert shown.startswith(("|", "Logits"))
        assert shown.endswith(f"**A GPU**: {NOT_MEASURED}.")

    def test_without_a_gpu_every_goal_says_that_it_was_not_measured(self) -> None:
        assert goals_table(None).count(NOT_MEASURED) == 5

    def test_goals_are_read_from_the_rows_of_a_gpu(self) -> None:
        rows = [
            gpu_row(f"sgsd_kernels triton{TRAINER}", STATED_FOR, FORWARD, 10.0),
            gpu_row(f"sgsd_kernels cublas{TRAINER}", STATED_FOR, FROZEN, 16.0),
            gpu_row(f"sgsd_kernels triton{TRAINER}", STATED_FOR, FROZEN, 20.0),
            gpu_row("sgsd_kernels triton", STATED_FOR, FROZEN, 1.0),  # the head loss, which the trainer does not call
            gpu_row(AUTHORS, STATED_FOR, FROZEN, 40.0),
            gpu_row("torch.compile", STATED_FOR, FROZEN, 12.8),
            gpu_row(f"sgsd_kernels triton{TRAINER}", LARGEST, FROZEN, 200.0),
            gpu_row(AUTHORS, LARGEST, FROZEN, None),
        ]
        found = goals_table({"rows": rows})
        assert f"50 % (sgsd_kernels triton{TRAINER})" in found
        assert f"2.50 (sgsd_kernels cublas{TRAINER})" in found
        assert f"yes (sgsd_kernels triton{TRAINER}); the authors' scheme: out of memory" in found
        assert "| 120 MB" in found
        assert f"1.25 (torch.compile, {STATED_FOR}, {FROZEN})" in found


def gpu_row(provider: str, size: Size, mode: Mode, milliseconds: float | None) -> dict[str, Any]:
    """A row of a result file that nobody measured; without a time it ran out of memory."""
    return Row(
        kernel="gated_head",
        size=size,
        mode=mode,
        provider=provider,
        status="out of memory" if milliseconds is None else "measured",
        milliseconds=None if milliseconds is None else Spread(milliseconds, milliseconds, milliseconds, 5),
        workspace_bytes=120_000_000,
        share_of_bare_product=0.5,
    ).as_dict()
