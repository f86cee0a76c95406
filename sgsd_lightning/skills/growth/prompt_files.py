"""The prompts behind the bank, which are files: ours, or a folder of a user's that replaces any of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from sgsd_lightning.language_models.identity import digest
from sgsd_lightning.prompts.chat import fill
from sgsd_lightning.strict_json import read_text

OUR_FOLDER = Path(__file__).resolve().parent / "prompts"
DOMAIN_FILE = "domain.txt"
REQUIRED = {
    "extract_skills.md": ("problem", "completion"),
    "extract_mistakes.md": ("problem", "completion"),
    "merge_skills.md": ("items",),
    "merge_mistakes.md": ("items",),
}
"""Files, and the placeholders without which each makes no sense."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """Texts with placeholders such as ``{problem}``; other braces stand for themselves."""

    extract_skills: str
    extract_mistakes: str
    merge_skills: str
    merge_mistakes: str

    @property
    def digest(self) -> str:
        """Of all texts: answers to other prompt files are other answers."""
        return digest(asdict(self))


def load_prompts(folder: str | None = None, domain: str | None = None) -> Prompts:
    """Our prompts, each replaced by the file of its name in ``folder`` where there is one.

    Args:
        folder: None takes ours.
        domain: What ``{domain}`` stands for; None takes ``domain.txt``.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: naming the file and the placeholder that it lacks.
    """
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(f"writer.prompts_folder {folder} is not a folder (looked in {Path.cwd()})")
    about = (domain if domain is not None else _read(DOMAIN_FILE, folder)[0]).strip()
    texts = {}
    for name, required in REQUIRED.items():
        text, path = _read(name, folder)
        for placeholder in required:
            if "{" + placeholder + "}" not in text:
                raise ValueError(f"{path}: the placeholder {{{placeholder}}} is missing from this prompt")
        texts[name.removesuffix(".md")] = fill(text, domain=about)
    return Prompts(**texts)


def _read(name: str, folder: str | None) -> tuple[str, Path]:
    own = None if folder is None else Path(folder) / name
    path = own if own is not None and own.is_file() else OUR_FOLDER / name
    return read_text(path), path
