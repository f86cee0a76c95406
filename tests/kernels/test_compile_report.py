from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compile_report import (
    BUDGET,
    CATALOGUE,
    find_faults,
    read_budget,
    stale_budgets,
)
from benchmarks.compile_tables import (
    REPORTS,
    TORCH_OF_TRITON,
    committed_tables,
    constrained_triton,
    report_table,
    versions_table,
)
from benchmarks.compiled_kernel import SHARED_MEMORY_LIMIT, CompiledKernel, specimens_by_name
from benchmarks.machine_code import parse_listing, ptx_instructions, spilled_bytes

pytest.importorskip("triton", reason="kernels are compiled by triton")
ROOT = Path(__file__).resolve().parents[2]
LISTING = """
Resource usage:
 Function kernel:
  REG:255 STACK:40 SHARED:1024 LOCAL:8 CONSTANT[0]:976 TEXTURE:0 SURFACE:0 SAMPLER:0

	code for sm_90a
		Function : kernel
        /*0000*/                   LDC R1, c[0x0][0x28] ;                     /* 0x00000a00ff017b82 */
                                                                              /* 0x000fe20000000800 */
        /*0010*/              @!P6 STL.64 [R1+0x10], R2 ;                     /* 0x0000000000007919 */
        /*0020*/             @!UP1 UTMALDG.2D [UR8], [UR4] ;                  /* 0x0000000000007919 */
        /*0030*/                   UTMALDG.2D [UR8], [UR4] ;                  /* 0x0000000000007919 */
        /*0040*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR4] ; /* 0x0000000000007919 */
        /*0050*/                   HMMA.16816.F32.BF16 R4, R4, R8, R12 ;      /* 0x0000000000007919 */
        /*0060*/               @P0 UTCHMMA gdesc[UR4], gdesc[UR6], tmem[UR8] ; /* 0x0000000000007919 */
        /*0070*/                   LDL.64 R2, [R1+0x10] ;                     /* 0x0000000000007919 */
        /*0080*/                   LDGSTS.E.BYPASS.128 [R3], desc[UR4][R2.64] ; /* 0x0000000000007919 */
"""


def run_report(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    inherited["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "kernels"), str(ROOT / "kernels")])
    command = [sys.executable, "-m", "benchmarks.compile_report", *arguments]
    return subprocess.run(command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, timeout=1800)


def compiled(**changes: Any) -> CompiledKernel:
    fields: dict[str, Any] = {
        "name": "scan/tma",
        "capability": 90,
        "num_warps": 8,
        "num_stages": 4,
        "registers": 255,
        "stack_bytes": 0,
        "spilled_bytes": 0,
        "shared_bytes": 227 * 1024,
        "tensor_memory_columns": 512,
        "instructions": {"wgmma": 4, "tma": 8},
        "num_instructions": 2000,
        "ptx_instructions": {"wgmma": 4, "tma": 8, "16-byte stores": 16},
        "expects": ["tma", "wgmma"],
        "holds": ["16-byte stores"],
        "is_serialized": False,
    }
    return CompiledKernel(**fields | changes)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    budget = tmp_path_factory.mktemp("faulty") / "budget.json"
    budget.write_text(json.dumps({importlib.metadata.version("triton"): {"90": {"sound": 8, "gone": 8}}}))
    return run_report("--catalogue", "faulty_specimens", "--budget", str(budget), "--capability", "90")


def test_the_hopper_scan_compiles_to_wgmma_and_tma(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    result = run_report("--only", "scan/tma/bfloat16/entropy", "--capability", "90", "--json", str(file))
    assert result.returncode == 0, result.stderr
    report = json.loads(file.read_text())
    assert all(report["versions"].values())
    assert [kernel["capability"] for kernel in report["kernels"]] == [90] * len(report["kernels"])
    assert all({"wgmma", "tma"} <= kernel["instructions"].keys() for kernel in report["kernels"])
    assert all({"wgmma", "tma"} <= kernel["ptx_instructions"].keys() for kernel in report["kernels"])
    assert all(len(line) > 100 for line in file.read_text().splitlines() if '"name"' in line)  # a kernel per line


@pytest.mark.slow
@pytest.mark.parametrize("capability", [str(capability) for capability in SHARED_MEMORY_LIMIT])
def test_every_kernel_that_is_shipped_compiles_within_its_budget(capability: str) -> None:
    result = run_report("--capability", capability)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "complaint",
    [
        "spilling for sm_90 keeps ",
        "greedy for sm_90 uses 3277",
        "without-products for sm_90 holds no wgmma instruction",
        "without-products for sm_90 holds no tma instruction",
        "impossible for sm_90 does not compile: CompileTimeAssertionFailure",
        "narrow for sm_90 holds no 16-byte stores",
        "accurate for sm_90 holds 1 exponentials that keep subnormal results",
        "from-registers for sm_90 holds 4 products (wgmma) that take A from registers",
        "the budget names gone for sm_90, and there is no such kernel",
    ],
)
def test_a_faulty_kernel_fails_the_report_by_its_name(faulty: subprocess.CompletedProcess[str], complaint: str) -> None:
    assert faulty.returncode == 1
    assert complaint in faulty.stderr


def test_a_sound_kernel_beside_faulty_ones_is_not_complained_of(faulty: subprocess.CompletedProcess[str]) -> None:
    assert "| sound " in faulty.stdout
    assert "sound" not in faulty.stderr


def test_the_report_refuses_to_run_where_kernels_are_interpreted() -> None:
    result = run_report("--only", "sound", "--catalogue", "faulty_specimens", TRITON_INTERPRET="1")
    assert result.returncode == 2
    assert "TRITON_INTERPRET is set" in result.stderr


def test_a_name_that_no_kernel_has_is_refused() -> None:
    result = run_report("--only", "nonesuch", "--catalogue", "faulty_specimens")
    assert result.returncode == 2
    assert "--only nonesuch is in no specimen's name" in result.stderr


def test_a_kernel_at_every_limit_has_no_fault() -> None:
    assert compiled().faults() == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"stack_bytes": 9}, "keeps 9 bytes per thread on the stack and spills 0; its budget is 8"),
        ({"spilled_bytes": 9}, "keeps 0 bytes per thread on the stack and spills 9; its budget is 8"),
        ({"shared_bytes": 227 * 1024 + 1}, "uses 232449 bytes of shared memory; the device has 232448"),
        ({"capability": 80}, "uses 232448 bytes of shared memory; the device has 166912"),
        ({"tensor_memory_columns": 513}, "uses 513 columns of tensor memory; the device has 512"),
        ({"instructions": {"tma": 8}}, "holds no wgmma instruction"),
        ({"instructions": {"wgmma": 8}}, "holds no tma instruction"),
        ({"ptx_instructions": {"wgmma": 4}}, "holds no 16-byte stores"),
        ({"ptx_instructions": {"16-byte stores": 1, "slow exp2": 3}}, "holds 3 exponentials that keep subnormal"),
        (
            {"ptx_instructions": {"16-byte stores": 1, "wgmma from registers": 2}},
            "holds 2 products (wgmma) that take A",
        ),
        ({"is_serialized": True}, "has its asynchronous products"),
    ],
)
def test_a_kernel_beyond_a_limit_has_one_fault(changes: dict[str, Any], fault: str) -> None:
    [found] = compiled(**changes).faults(budget_bytes=8)
    assert fault in found


def test_other_devices_need_no_instruction_of_hopper() -> None:
    assert compiled(capability=100, instructions={"tcgen05": 8}).faults() == []


def test_a_budget_belongs_to_one_kernel_and_capability() -> None:
    kernels = [compiled(stack_bytes=8), compiled(stack_bytes=8, capability=100), compiled(stack_bytes=8, name="scan")]
    faults = find_faults(kernels, {90: {"scan/tma": 8}})
    assert [fault.split(" keeps")[0] for fault in faults] == ["scan/tma for sm_100", "scan for sm_90"]


def test_a_budget_for_a_capability_that_was_not_compiled_is_not_stale() -> None:
    assert stale_budgets([compiled()], {90: {"scan/tma": 8}, 100: {"scan/tma": 8}}) == []


def test_a_budget_that_is_no_number_of_bytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "budget.json"
    file.write_text('{"3.9.0": {"90": {"scan/tma": -1}}, "3.7.1": {"90": {"scan/tma": 1}}}')
    with pytest.raises(ValueError, match=r"the budget of scan/tma is -1; give bytes per thread"):
        read_budget(file, "3.9.0")
    assert read_budget(file, "3.7.1") == {90: {"scan/tma": 1}}
    assert read_budget(file, "3.6.0") == {}


def test_there_is_a_budget_and_a_report_for_every_triton_that_a_supported_torch_installs() -> None:
    assert constrained_triton() in TORCH_OF_TRITON
    assert json.loads(BUDGET.read_text()).keys() == TORCH_OF_TRITON.keys()
    assert {file.stem for file in REPORTS.glob("*.json")} == TORCH_OF_TRITON.keys()


def test_constraints_without_a_triton_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text("torch==2.13.0\n# triton==3.7.1\n")
    with pytest.raises(ValueError, match=r"constraints\.txt pins no triton"):
        constrained_triton(file)


@pytest.mark.parametrize("version", TORCH_OF_TRITON)
def test_only_options_that_few_models_have_may_spill(version: str) -> None:
    """Bias and softcap, and products without tensor cores; what every model runs keeps all it has in registers."""
    for kernels in read_budget(BUDGET, version).values():
        for name, limit in kernels.items():
            assert limit <= 256
            assert name.endswith(("/bias", "/softcap")) or "/float32" in name or limit <= 16, name


@pytest.mark.parametrize("version", TORCH_OF_TRITON)
def test_the_committed_reports_are_those_of_every_kernel_without_fault(version: str) -> None:
    report = json.loads((REPORTS / f"{version}.json").read_text())
    assert report["versions"]["triton"] == version
    assert report["faults"] == []
    kernels = {(kernel["capability"], kernel["name"]): kernel for kernel in report["kernels"]}
    capabilities = {capability for capability, _ in kernels}
    assert capabilities >= (SHARED_MEMORY_LIMIT.keys() if version == constrained_triton() else {90})
    for capability in capabilities:
        assert {name for of, name in kernels if of == capability} == specimens_by_name(CATALOGUE, capability).keys()
    scan = kernels[90, "scan/tma/bfloat16/entropy"]
    assert scan["spilled_bytes"] == 0
    # one pass over 128 x 256 logits by 256 threads: 128 of a thread, at most 18 instructions each with the product's
    assert scan["num_instructions"] <= (3700 if version == "3.8.0" else 2800)
    assert scan["ptx_instructions"].get("slow exp2", 0) == 0
    assert kernels[90, "dlogits/tma/bfloat16"]["ptx_instructions"]["16-byte stores"] == 16
    assert all(kernel["shared_bytes"] <= 99 * 1024 for (of, _), kernel in kernels.items() if of == 120)


def test_a_listing_gives_registers_stack_and_kinds_of_instructions() -> None:
    code = parse_listing(LISTING)
    assert (code.registers, code.stack_bytes) == (255, 48)
    assert code.num_instructions == 9
    assert code.instructions == {
        "wgmma": 1, "tma": 2, "tcgen05": 1, "mma.sync": 1, "cp.async": 1, "local loads": 1, "local stores": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("listing", "message"),
    [("", "names no registers"), ("REG:1 STACK:0 SHARED:0 LOCAL:0", "holds no instruction")],
)
def test_a_listing_of_nothing_is_refused(listing: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_listing(listing)


def test_kinds_of_instructions_are_counted_in_ptx() -> None:
    ptx = """
    // wgmma.mma_async in a comment is none
    @%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2, %r3}], [%r4];
    wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {%r1,%r2}, %rd1, %rd2, 1, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};
    @%p2 tcgen05.mma.cta_group::1.kind::f16 [%r1], %rd1, %rd2, %r3, 1;
    cp.async.cg.shared.global [%r1], [%rd1], 16;
    cp.async.commit_group;
    @%p3 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
    ld.global.b32 { %r1 }, [ %rd1 + 0 ];
    @%p3 st.global.v4.b32 [ %rd1 + 0 ], { %r1, %r2, %r3, %r4 };
    st.global.v2.b32 [ %rd1 + 0 ], { %r1, %r2 };
    ex2.approx.ftz.f32 %r1, %r2;
    ex2.approx.f32 %r1, %r2;
    """
    assert ptx_instructions(ptx) == {
        "wgmma": 1, "tma": 1, "tcgen05": 1, "mma.sync": 1, "cp.async": 1, "16-byte loads": 1, "16-byte stores": 1,
        "slow exp2": 1,
    }  # fmt: skip


def test_a_product_that_takes_its_first_factor_from_registers_is_counted_apart() -> None:
    ptx = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r1,%r2}, {%r3,%r4,%r5,%r6}, %rd2, 1, 1, 1, 0;"
    assert ptx_instructions(ptx) == {"wgmma": 1, "wgmma from registers": 1}


def test_spills_are_read_from_the_log_of_ptxas() -> None:
    log = "ptxas info    : Function properties\n    48 bytes stack frame, 28 bytes spill stores, 32 bytes spill loads"
    assert spilled_bytes(log) == 32
    with pytest.raises(ValueError, match="does not tell how much is spilled"):
        spilled_bytes("")


def test_the_table_has_a_row_per_kernel_and_capability() -> None:
    kernels = [
        {"name": "scan", "capability": 100, "error": "no"},
        {"name": "scan", "capability": 90, "num_warps": 8, "num_stages": 4, "registers": 255, "spilled_bytes": 28}
        | {"shared_bytes": 196608, "num_instructions": 2000, "instructions": {"wgmma": 4, "tma": 8}},
    ]
    lines = report_table(kernels).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "scan", "90", "8", "4", "255", "28", "192.0", "2000", "wgmma 4, tma 8",
    ]  # fmt: skip
    assert "does not compile" in lines[3]
    assert len({len(line) for line in lines}) == 1


def test_the_table_of_versions_counts_faults_and_spills_per_capability() -> None:
    kernels = [{"capability": 90, "spilled_bytes": bytes_} for bytes_ in (0, 8, 24)]
    kernels += [{"capability": 100, "error": "no"}]
    report = {
        "date": "2026-11-26",
        "versions": {"ptxas": "12.8", "ptxas-blackwell": "12.9"},
        "faults": ["scan for sm_90 keeps 8", "scan for sm_90 holds no tma", "scan for sm_100 does not compile"],
        "kernels": kernels,
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in versions_table({"3.7.1": report}).splitlines()]
    assert rows[2:] == [
        ["3.7.1", "2.12, 2.13", "12.8", "90", "3", "2", "2", "24", "2026-11-26"],
        ["3.7.1", "2.12, 2.13", "12.9", "100", "1", "1", "0", "0", "2026-11-26"],
    ]


def test_the_committed_reports_make_tables() -> None:
    tables = committed_tables()
    assert "does not compile" not in tables
    assert all(f"| {version} " in tables for version in TORCH_OF_TRITON)
