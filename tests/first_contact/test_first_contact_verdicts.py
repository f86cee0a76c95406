"""Verdicts about measurements that nobody made: one for each way a step can go."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from benchmarks.first_contact.plan import PLAN
from benchmarks.first_contact.verdict import Verdict, listed
from benchmarks.first_contact.verdicts import (
    assembler,
    attention_backends,
    chunk_sizes,
    compiled,
    counters,
    goals,
    kernel_values,
    loading,
    machine,
    sanitizer,
    suite,
    training,
)

NAN = float("nan")
HOPPER: dict[str, Any] = {
    "provenance": {"device": "NVIDIA H100", "versions": {"torch": "2.11.0"}},
    "has_gpu": True,
    "cuda": "12.8",
    "compiler": "/usr/bin/gcc",
    "has_python_headers": True,
    "missing": [],
    "triton": {"version": "3.6.0", "ptxas": "12.8", "is_reported": True},
    "capability": 90,
    "cudnn": 91900,
    "launch_error": None,
}


def says(verdict: Verdict, outcome: str, *parts: str) -> None:
    """One sentence of that outcome, with all of the parts."""
    assert verdict.outcome == outcome, verdict
    for part in parts:
        assert part in verdict.sentence, verdict.sentence
    assert verdict.sentence.endswith(".")
    assert not verdict.sentence.endswith("..")


@pytest.mark.parametrize("step", PLAN, ids=lambda step: step.number)
def test_of_a_probe_that_measured_nothing_nothing_is_said(step: Any) -> None:
    says(step.judge({}), "skipped")
    says(step.judge({"at": "its first case"}), "skipped")


class TestMachine:
    def test_a_machine_on_which_kernels_are_launched(self) -> None:
        verdict = machine.judge(HOPPER)
        says(verdict, "good", "NVIDIA H100, torch 2.11.0, triton 3.6.0 with ptxas 12.8", "compile_report/3.6.0.json")
        assert not verdict.lacks

    def test_a_triton_without_a_report_names_the_command(self) -> None:
        triton = {"version": "3.8.0", "ptxas": "12.9", "is_reported": False}
        says(machine.judge(HOPPER | {"triton": triton}), "act", "make compile-report TRITON=3.8.0")

    def test_packages_that_are_missing_are_named(self) -> None:
        says(machine.judge(HOPPER | {"missing": ["jsonargparse"]}), "good", "without jsonargparse")

    @pytest.mark.parametrize(
        ("lacking", "said"), [("compiler", "a C compiler (apt-get install gcc)"), ("has_python_headers", "python3-dev")]
    )
    def test_without_what_triton_builds_with_no_kernel_step_follows(self, lacking: str, said: str) -> None:
        verdict = machine.judge(HOPPER | {lacking: None, "launch_error": "RuntimeError: Failed to find C compiler"})
        says(verdict, "bad", said, "`chunked`")
        assert "compiler" in verdict.lacks
        assert verdict.environment == {"SGSD_KERNELS_IMPLEMENTATION": "chunked"}

    def test_a_launch_that_fails_for_another_reason_is_quoted(self) -> None:
        says(machine.judge(HOPPER | {"launch_error": "PTXASError: sm_90\nis unknown"}), "bad", "sm_90 is unknown")

    def test_a_launch_that_did_not_come_back_is_bad(self) -> None:
        says(machine.judge({k: v for k, v in HOPPER.items() if k != "launch_error"}), "bad", "was not found out")

    def test_without_triton_and_on_old_devices_kernels_are_left_out(self) -> None:
        assert "compiler" in machine.judge(HOPPER | {"triton": None}).lacks
        verdict = machine.judge(HOPPER | {"capability": 75})
        says(verdict, "act", "sm_75 is older")
        assert "compiler" in verdict.lacks

    def test_without_a_gpu_it_says_so_and_whether_torch_could_have_used_one(self) -> None:
        verdict = machine.judge({"has_gpu": False, "cuda": None})
        says(verdict, "good", "There is no GPU here", "built without CUDA", "nothing was measured on a GPU")
        assert "gpu" in verdict.lacks
        says(machine.judge({"has_gpu": False, "cuda": "12.8"}), "act", "built for CUDA 12.8")


class TestLoading:
    SOUND: ClassVar[dict[str, Any]] = {
        "device": "cuda",
        "dtype": "bfloat16",
        "attention": "sgsd_varlen",
        "has_varlen_attn": True,
        "warnings": [],
        "logprob_gap": 0.02,
        "gradient_gap": 0.01,
    }

    def test_scores_that_agree(self) -> None:
        says(loading.judge(self.SOUND), "good", "2.0e-02 nats")

    @pytest.mark.parametrize("gap", [{"logprob_gap": 0.5}, {"gradient_gap": 0.2}, {"logprob_gap": NAN}])
    def test_scores_that_do_not_agree(self, gap: dict[str, float]) -> None:
        says(loading.judge(self.SOUND | gap), "bad", "set policy.attention to sdpa")

    def test_float32_is_held_to_more(self) -> None:
        says(loading.judge(self.SOUND | {"dtype": "float32"}), "bad")

    def test_kernels_that_are_not_used_are_a_loss_and_no_fault(self) -> None:
        warning = "attention: torch's varlen_attn on cuda differs from plain attention by 2; it is not used"
        says(loading.judge(self.SOUND | {"warnings": ["other", warning]}), "act", warning)
        says(loading.judge(self.SOUND | {"has_varlen_attn": False}), "act", "install flash-attn")
        says(loading.judge(self.SOUND | {"has_varlen_attn": False, "device": "cpu"}), "good")


def value_row(implementation: str = "triton", **changed: Any) -> dict[str, Any]:
    sound = {"logprob": 1e-5, "lse": 1e-5, "entropy": 1e-5, "grad_hidden": 3e-3, "grad_weight": 3e-3}
    same = {"same_again": True, "same_alone": implementation.startswith("triton")}
    return {"implementation": implementation, "case": "300 x 2048", "width": 2048, **sound, **same, **changed}


class TestKernelValues:
    def judge(self, *rows: dict[str, Any]) -> Verdict:
        return kernel_values.judge({"cases": list(rows)})

    def test_right_values(self) -> None:
        says(self.judge(value_row(), value_row("cublas")), "good", "triton and cublas are right in all 2 cases")

    def test_interpreted_tiles_say_nothing_of_a_device(self) -> None:
        found = {"cases": [value_row("triton, tiles of sm_90")], "is_interpreted": True}
        says(kernel_values.judge(found), "good", "of a device nothing is known")

    @pytest.mark.parametrize("wrong", [{"logprob": 3e-4}, {"grad_weight": 0.02}, {"entropy": 0.1}, {"lse": NAN}])
    def test_wrong_triton_beside_right_cublas_switches_the_later_steps(self, wrong: dict[str, float]) -> None:
        verdict = self.judge(value_row(**wrong), value_row("cublas"))
        says(verdict, "bad", f"{next(iter(wrong))} by", "SGSD_KERNELS_IMPLEMENTATION=cublas")
        assert verdict.environment == {"SGSD_KERNELS_IMPLEMENTATION": "cublas"}

    def test_wrong_cublas_beside_right_triton_leaves_the_head_as_it_is(self) -> None:
        verdict = self.judge(value_row(), value_row("cublas", grad_hidden=1.0))
        says(verdict, "bad", "cublas is off", "chunked where it says cublas")
        assert not verdict.environment

    def test_where_both_are_wrong_plain_torch_is_left(self) -> None:
        verdict = self.judge(value_row(logprob=1.0), value_row("cublas", logprob=1.0))
        assert verdict.environment == {"SGSD_KERNELS_IMPLEMENTATION": "chunked"}

    def test_a_wrong_tile_in_the_interpreter_is_wrong_by_its_source(self) -> None:
        rows = value_row("triton, tiles of sm_90", logprob=1.0), value_row("triton, tiles of sm_80", same_alone=True)
        says(self.judge(*rows), "bad", "tiles of sm_90 is off", "wrong by its source")

    def test_other_bits_for_the_same_input_are_a_race(self) -> None:
        says(self.judge(value_row(), value_row("cublas", same_again=False)), "bad", "cublas gave other bits", "race")

    def test_bits_that_depend_on_the_batch_are_a_claim_that_falls_for_triton_alone(self) -> None:
        says(self.judge(value_row(same_alone=False)), "act", "strike batch invariance")
        says(self.judge(value_row("cublas", same_alone=False)), "good")

    def test_the_bound_is_that_of_the_width(self) -> None:
        error = {"logprob": 3e-4, "lse": 3e-4}
        says(self.judge(value_row(width=4096, **error)), "good")
        says(self.judge(value_row(width=1024, **error)), "bad")


class TestAssembler:
    def judge(self, row: dict[str, Any] | None = None, bundled: dict[str, Any] | None = None) -> Verdict:
        compared = {**value_row(**(row or {})), "same_bits": not row, "bundled": value_row(**(bundled or {}))}
        found = {"release": "13.3", "is_new_enough": True, "path": "/cuda/ptxas", "cases": [compared]}
        return assembler.judge(found)

    def test_two_assemblers_that_agree(self) -> None:
        says(self.judge(), "good", "1 of 1 cases the same bits")

    def test_a_fault_of_the_bundled_one_switches_the_later_steps(self) -> None:
        verdict = self.judge(bundled={"logprob": 0.1})
        says(verdict, "bad", "set TRITON_PTXAS_PATH=/cuda/ptxas")
        assert verdict.environment["TRITON_PTXAS_PATH"] == "/cuda/ptxas"
        assert verdict.environment["SGSD_KERNELS_IMPLEMENTATION"] == "auto"

    def test_a_fault_of_the_later_one_does_not(self) -> None:
        verdict = self.judge(row={"logprob": 0.1})
        says(verdict, "bad", "stay with the bundled one")
        assert not verdict.environment

    def test_a_fault_of_both_is_the_kernels(self) -> None:
        says(self.judge({"logprob": 0.1}, {"logprob": 0.1}), "bad", "in the kernel or in Triton")

    @pytest.mark.parametrize(("release", "said"), [("", "there is none"), ("12.8", "only that of CUDA 12.8")])
    def test_without_a_later_one_it_says_where_to_get_it(self, release: str, said: str) -> None:
        found = {"release": release, "is_new_enough": False}
        says(assembler.judge(found), "skipped", said, "pip install nvidia-cuda-nvcc")


class TestSanitizer:
    def judge(self, **found: Any) -> Verdict:
        return sanitizer.judge({"has_tool": True, "kinds": [], "kernels": ["scan_kernel"], **found})

    def test_no_error_and_no_tool(self) -> None:
        says(self.judge(num_errors=0), "good")
        says(sanitizer.judge({"has_tool": False}), "skipped", "CUDA toolkit")
        says(self.judge(num_errors=None), "act", "no summary")

    def test_an_error_names_the_kernel_and_leaves_it_out(self) -> None:
        verdict = self.judge(num_errors=3, kinds=["Invalid __global__ write of size 4 bytes"])
        says(verdict, "bad", "3 errors", "scan_kernel")
        assert verdict.environment == {"SGSD_KERNELS_IMPLEMENTATION": "cublas"}

    def test_reads_of_shared_memory_alone_may_be_the_tools(self) -> None:
        verdict = self.judge(num_errors=3, kinds=["Invalid __shared__ read of size 16 bytes"])
        says(verdict, "act", "wgmma")
        assert not verdict.environment


class TestSuite:
    def judge(self, passed: int, failed: int, skipped: int, **found: Any) -> Verdict:
        numbers = {"num_passed": passed, "num_failed": failed, "num_skipped": skipped}
        return suite.judge({"has_pytest": True, "failed": [f"test_{n}" for n in range(failed)], **numbers, **found})

    def test_each_way_a_run_can_go(self) -> None:
        says(self.judge(300, 0, 12), "good", "300 passed, 0 failed, 12 skipped")
        says(self.judge(300, 2, 12), "bad", "begin with test_0 and 1 more")
        says(self.judge(0, 0, 4), "act", "nothing ran")
        says(self.judge(0, 0, 0, pytest_status=4), "bad", "status 4")
        says(self.judge(0, 0, 0), "skipped")
        says(suite.judge({"has_pytest": False}), "skipped", "pip install pytest")


def timed(sweep: str, setting: str, ms: float, *, shipped: bool = False, width: int = 2048) -> dict[str, Any]:
    return {
        "size": f"9216 x {width}",
        "width": width,
        "sweep": sweep,
        "setting": setting,
        "is_shipped": shipped,
        "ms": ms,
    }


class TestChunkSizes:
    BARE = ({"size": "9216 x 2048", "ms": 7.0},)

    def judge(self, *rows: dict[str, Any]) -> Verdict:
        return chunk_sizes.judge({"rows": list(rows), "bare": list(self.BARE)})

    def test_the_choices_that_ship_are_the_fastest(self) -> None:
        rows = timed(chunk_sizes.TRITON, "32", 10.0, shipped=True), timed(chunk_sizes.TRITON, "16", 9.9)
        says(
            self.judge(*rows, timed(chunk_sizes.CUBLAS, "4096x8192", 11.0, shipped=True)), "good", "71 % (9216 x 2048)"
        )

    def test_a_faster_size_names_where_it_is_set(self) -> None:
        rows = timed(chunk_sizes.TRITON, "32", 10.0, shipped=True), timed(chunk_sizes.TRITON, "16", 8.0)
        says(self.judge(*rows), "act", "16 is 20 % faster than 32", "GROUP_BYTES")

    def test_a_faster_library_changes_the_table_at_that_width(self) -> None:
        rows = timed(chunk_sizes.TRITON, "32", 10.0, shipped=True), timed(chunk_sizes.CUBLAS, "c", 9.0, shipped=True)
        says(self.judge(*rows), "act", "D = 2048 cublas takes 9 ms and triton 10", "dispatch.TABLE", "batch invariance")

    def test_sizes_of_no_choice_change_nothing(self) -> None:
        rows = timed("k, ranking by cublas", "8", 1.0), timed("k, ranking by cublas", "128", 9.0)
        says(self.judge(*rows), "good")


class TestCounters:
    SCAN: ClassVar[dict[str, Any]] = {
        "kernel": "scan_kernel",
        "tensor_pipe_percent": 75.0,
        "l2_hit_percent": 80.0,
        "dram_gb": 2.0,
    }
    STORES: ClassVar[dict[str, Any]] = {"kernel": "dlogits_kernel", "sectors_per_store": 16.0}

    def judge(self, *kernels: dict[str, Any], **found: Any) -> Verdict:
        return counters.judge({"has_tool": True, "kernels": list(kernels), **found})

    def test_what_is_as_it_should_be(self) -> None:
        says(self.judge(self.SCAN, self.STORES), "good", "tensor pipe 75 %", "DRAM 2 GB", "dlogits 16")

    @pytest.mark.parametrize(
        ("changed", "said"), [({"tensor_pipe_percent": 60.0}, "Gluon"), ({"dram_gb": 17.0}, "lower GROUP_BYTES")]
    )
    def test_each_cause_names_its_remedy(self, changed: dict[str, float], said: str) -> None:
        says(self.judge(self.SCAN | changed, self.STORES), "act", said)

    def test_narrow_stores(self) -> None:
        says(self.judge(self.SCAN, self.STORES | {"sectors_per_store": 2.0}), "act", "st.global.v4")

    def test_counters_that_cannot_be_read(self) -> None:
        says(counters.judge({"has_tool": False}), "skipped", "no ncu")
        says(self.judge(is_refused=True), "skipped", "ERR_NVGPUCTRPERM", "as root")
        says(self.judge({"kernel": "scan_kernel", "dram_gb": None}), "skipped", "its log")


class TestAttentionBackends:
    def judge(self, new_ms: float, seen_ms: float, gradient: str = "finite") -> Verdict:
        on = {"cudnn": True, "mask": True, "new_shape_ms": new_ms, "seen_shape_ms": seen_ms}
        off = {"cudnn": False, "mask": True, "new_shape_ms": 1.0, "seen_shape_ms": 1.0}
        return attention_backends.judge({"rows": [on, off], "cudnn_gradient": gradient})

    def test_each_way_cudnn_can_be(self) -> None:
        says(self.judge(60.0, 1.0), "act", "a plan per shape", "60 ms", "off")
        says(self.judge(0.8, 0.7), "act", "may be turned on")
        says(self.judge(1.2, 1.1), "good", "leave it off")
        says(self.judge(0.8, 0.7, gradient="not finite"), "bad", "#196678", "off")

    def test_what_was_not_compared_is_not_judged(self) -> None:
        row = {"cudnn": True, "mask": True, "new_shape_ms": 9.0, "seen_shape_ms": 1.0}
        says(attention_backends.judge({"rows": [row]}), "skipped")


class TestGoals:
    MET: ClassVar[dict[str, Any]] = {"name": "forward", "wanted": "70 %", "found": "75 % (triton)", "is_met": True}

    def test_each_way_the_goals_can_be(self) -> None:
        peers = {"name": "time over the best peer's, ...", "wanted": "1", "found": "2", "is_met": False}
        says(goals.judge({"goals": [self.MET, peers]}), "good", "All 1 goals are met")
        unmet = self.MET | {"found": "61 % (triton)", "is_met": False}
        says(goals.judge({"goals": [unmet, self.MET]}), "act", "1 of 2", "61 % (triton) where 70 % was wanted")

    def test_a_wrong_answer_of_ours_is_not_timed_and_one_of_the_authors_is_no_matter(self) -> None:
        row = {"provider": "sgsd_kernels triton", "status": "wrong", "mode": "forward", "reason": "loss is off"}
        says(goals.judge({"rows": [row], "goals": [self.MET]}), "bad", "sgsd_kernels triton is wrong", "loss is off")
        says(goals.judge({"rows": [row | {"provider": "eager"}], "goals": [self.MET]}), "good")


class TestTraining:
    def judge(self, rollout: float, **found: Any) -> Verdict:
        run = {"num_steps": 4, "way": "sgsd fit", "device": "cuda", "is_finite": True, "missing": []}
        return training.judge({**run, "phases": {"rollout": rollout, "step": 1000.0}, **found})

    def test_each_way_training_can_go(self) -> None:
        says(self.judge(300.0), "good", "4 steps by sgsd fit on cuda run, 1000 ms each")
        says(self.judge(900.0), "act", "rollouts are 90 % of a step's 1000 ms", "benchmarks.rollouts")
        says(self.judge(300.0, is_finite=False), "bad", "not finite")
        without = self.judge(300.0, way="the plain loop", missing=["jsonargparse"])
        says(without, "good", "by the plain loop (for want of jsonargparse)")


class TestCompiled:
    def judge(self, *faults: str, whole: bool = True) -> Verdict:
        versions = {"triton": "3.7.1", "ptxas": "12.8"}
        return compiled.judge({"versions": versions, "num_kernels": 60, "is_whole": whole, "faults": list(faults)})

    def test_each_way_compilation_can_go(self) -> None:
        says(self.judge(), "good", "60 kernels for Hopper")
        says(self.judge(whole=False), "good", "the kernel that matters most")
        says(self.judge("scan spills 300 B", "x"), "bad", "2 faults", "scan spills 300 B")


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert listed(["a"]) == "a"
