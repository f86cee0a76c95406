"""Resolve constraints.txt and every dependency from the package index's metadata alone, for each supported Python.

What `make setup` must find on a machine that has no CPU wheel of torch at hand: any GPU machine, any Python but the
one a local wheel was built for. pip reads no configuration here (no extra index, no find-links, no constraints of the
machine's), only how to reach the index: certificate, proxy, timeout, and the index itself where a mirror stands in.
Nothing is installed, and of the wheels only the metadata is fetched.

Wheels alone count. A package that ships source only would have to be built for its metadata: flash-attn (the extra
`flash`), whose build wants torch and a CUDA compiler, and some that the packages of the extra `laptop` need. Those
extras are left out and said to be; the packages that `laptop` names are still looked for, without what they need.
antlr4-python3-runtime has a wheel at the version that math-verify's parser takes last, and none of it below.

Exit status: 1 if any Python does not resolve; 0 if all do, or, said aloud, if no index answers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pythons import PROJECT, ROOT, VERSIONS, interpreter

LEFT_OUT = {
    "flash": "flash-attn ships source only",
    "laptop": "llama-cpp-python, pycosat, cellpylib and zss, which its packages need, ship source only",
}
"""Extras that wheels cannot give, and why."""
ALONE = ("laptop",)
"""Of these, the extras whose own packages must have wheels all the same, without what they need."""
KEPT = ("cert", "client-cert", "proxy", "timeout", "default-timeout", "index-url", "trusted-host")
"""The settings of pip that say how the index is reached."""
ANSWERED = re.compile(r'"GET \S+ HTTP/[\d.]+" \d{3}|SSL|CERTIFICATE', re.IGNORECASE)
"""In pip's debug output: a response of any status, or a certificate that pip would not take."""

STEPS = re.compile(
    r"\s*(?:Collecting|Obtaining|Downloading|Using cached|Requirement already|━|WARNING: pip is using lazily)"
)
"""What pip tells of its progress."""


def main() -> int:
    """Resolve for every version; the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--python", action="append", choices=VERSIONS, help="only this one; may be repeated")
    chosen = parser.parse_args()
    environment = pip_environment()
    silence = index_is_silent(environment)
    if silence is not None:
        print(f"resolve: SKIPPED, no package index answers: {silence}")
        return 0
    print(f"resolve: without {', '.join(f'`{extra}` ({why})' for extra, why in LEFT_OUT.items())}", flush=True)
    failed = [
        version
        for version in chosen.python or VERSIONS
        if not resolves(version, requirements(), chosen.constraints, environment)
        or not has_wheels(version, alone(), chosen.constraints, environment)
    ]
    return 1 if failed else 0


def requirements() -> list[str]:
    """Every requirement of pyproject.toml, those of all extras included."""
    extras = [extra for name, extra in PROJECT["optional-dependencies"].items() if name not in LEFT_OUT]
    return sorted({*PROJECT["dependencies"], *(requirement for extra in extras for requirement in extra)})


def alone() -> list[str]:
    """The requirements of the extras that are resolved without what they need."""
    return sorted(requirement for name in ALONE for requirement in PROJECT["optional-dependencies"][name])


def has_wheels(version: str, wanted: list[str], constraints: Path, environment: dict[str, str]) -> bool:
    """Whether the index has a wheel of each for a Python; says which, or why not."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
        command += ["--use-feature=fast-deps", "--no-deps", "--python-version", version, "--target", folder]
        asked = [*command, "-c", str(constraints), *wanted]
        result = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line and not STEPS.match(line)]
    print(f"Python {version}: {lines[-1] if lines else 'pip says nothing'}", flush=True)
    return result.returncode == 0


def pip_environment() -> dict[str, str]:
    """The environment without pip's settings, but for those that reach the index, wherever they were made."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    kept = {}
    for section in ("global", "install", ":env:"):  # as pip ranks them
        for key, value in re.findall(rf"^{section}\.([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE):
            if key in KEPT:
                kept[f"PIP_{key.upper().replace('-', '_')}"] = value.replace(r"\n", " ")
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith("PIP_")}
    return {**others, **kept, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def index_is_silent(environment: dict[str, str]) -> str | None:
    """The last thing pip says if nothing answers it; None if anything does."""
    asked = [sys.executable, "-m", "pip", "index", "versions", "pip", "-vvv", "--retries", "1", "--timeout", "20"]
    result = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    told = result.stdout + result.stderr
    if result.returncode == 0 or ANSWERED.search(told):
        return None
    warnings = [line.strip() for line in told.splitlines() if "connection broken" in line]
    return warnings[-1] if warnings else told.strip().splitlines()[-1]


def resolves(version: str, wanted: list[str], constraints: Path, environment: dict[str, str]) -> bool:
    """Whether pip finds wheels for all of it; says which torch and triton, or why not."""
    python = interpreter(version)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip"]
        if python is not None:
            command += ["--python", python]
        command += ["install", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--use-feature=fast-deps"]
        command += ["--report", str(report), "-c", str(constraints)]
        if python is None:
            command += ["--python-version", version, "--target", str(Path(folder) / "target")]
        result = subprocess.run([*command, *wanted], env=environment, capture_output=True, text=True, check=False)
        found = json.loads(report.read_text())["install"] if result.returncode == 0 else []
    whose = "" if python is not None else " (not on this machine: its wheels, this Python's markers)"
    if result.returncode != 0:
        lines = [line for line in (result.stdout + result.stderr).splitlines() if line and not STEPS.match(line)]
        print(f"Python {version}{whose}: does not resolve\n  " + "\n  ".join(lines[-20:]), flush=True)
        return False
    versions = {entry["metadata"]["name"].lower(): entry["metadata"]["version"] for entry in found}
    local = [entry["download_info"]["url"] for entry in found if _is_local(entry)]
    if local:
        print(f"Python {version}{whose}: not what the public index offers: {', '.join(local)}", flush=True)
        return False
    print(
        f"Python {version}{whose}: {len(found)} packages, torch {versions['torch']}, triton {versions['triton']} "
        f"({time.monotonic() - started:.0f} s)",
        flush=True,
    )
    return True


def _is_local(entry: dict[str, dict[str, str]]) -> bool:
    return "+" in entry["metadata"]["version"] or entry["download_info"]["url"].startswith("file:")


if __name__ == "__main__":
    sys.exit(main())
