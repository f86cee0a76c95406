"""Step 1: what kind of machine this is, and whether kernels can be launched on it."""

from __future__ import annotations

from benchmarks.first_contact.verdict import Found, Need, Verdict

IF_BROKEN = "repair the installation (make setup) before anything else"
NO_GPU = "it needs a GPU"
LEAST_CAPABILITY = 80


def judge(found: Found) -> Verdict:
    if "has_gpu" not in found:
        return Verdict("skipped", "Nothing is known of this machine.", lacks=_without_gpu())
    if not found["has_gpu"]:
        return _without(found)
    capability = found.get("capability", 0)
    about = _about(found)
    if capability < LEAST_CAPABILITY:
        sentence = (
            f"{about}: sm_{capability} is older than the kernels are for (sm_{LEAST_CAPABILITY}); `chunked` runs."
        )
        return Verdict("act", sentence, lacks={"compiler": f"no kernel of ours is for sm_{capability}"})
    triton = found.get("triton")
    if triton is None:
        return _without_kernels(f"{about}: Triton is not installed, so only `chunked` runs; install it.")
    if found.get("launch_error"):
        return _not_launched(found, about)
    if "launch_error" not in found:
        return Verdict("bad", f"{about}: whether a kernel can be launched was not found out.")
    return _sound(found, about, triton)


def _sound(found: Found, about: str, triton: Found) -> Verdict:
    version = triton["version"]
    missing = found.get("missing", [])
    without = f" (without {', '.join(missing)}, whose steps are skipped or done in another way)" if missing else ""
    if not triton["is_reported"]:
        sentence = (
            f"{about}{without}: a kernel was launched, and no compile report describes the machine code of Triton "
            f"{version}; run make compile-report TRITON={version}."
        )
        return Verdict("act", sentence)
    report = f"benchmarks/results/compile_report/{version}.json"
    return Verdict("good", f"{about}{without}: a kernel was launched, and {report} describes its machine code.")


def _not_launched(found: Found, about: str) -> Verdict:
    lacking = []
    if not found.get("compiler"):
        lacking.append("a C compiler (apt-get install gcc)")
    if not found.get("has_python_headers"):
        lacking.append("Python's headers (apt-get install python3-dev)")
    cause = f"Triton builds its launcher at run time and lacks {' and '.join(lacking)}" if lacking else ""
    error = " ".join(str(found["launch_error"]).split())[:200]
    sentence = f"{about}: no kernel can be launched ({cause or error}); until then `chunked` is used."
    return _without_kernels(sentence)


def _without(found: Found) -> Verdict:
    build = f"is built for CUDA {found['cuda']}" if found.get("cuda") else "is built without CUDA"
    sentence = (
        f"There is no GPU here and torch {build}: what can be run without one is run, and every table goes on saying "
        "that nothing was measured on a GPU."
    )
    return Verdict("act" if found.get("cuda") else "good", sentence, lacks=_without_gpu())


def _about(found: Found) -> str:
    origin = found.get("provenance", {})
    versions = origin.get("versions", {})
    triton = found.get("triton") or {}
    parts = [
        str(origin.get("device", "a GPU")),
        f"torch {versions.get('torch', 'unknown')}",
        f"triton {triton.get('version', 'missing')} with ptxas {triton.get('ptxas', 'unknown')}",
        f"cuDNN {found.get('cudnn', 'unknown')}",
    ]
    return ", ".join(parts)


def _without_gpu() -> dict[Need, str]:
    return {"gpu": NO_GPU}


def _without_kernels(sentence: str) -> Verdict:
    """Later steps go by plain torch, and those that are about kernels are left out."""
    reason = "no kernel can be launched, see step 1"
    return Verdict("bad", sentence, {"SGSD_KERNELS_IMPLEMENTATION": "chunked"}, {"compiler": reason})
