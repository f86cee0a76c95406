"""The writer's prompts: built-in files, each of which a file in a folder of the user's may replace."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from sgsd_lightning.language_models.identity import digest
from sgsd_lightning.prompts.chat import fill
from sgsd_lightning.texts.strict_json import read_text

OUR_FOLDER = Path(__file__).resolve().parent / "prompts"
DOMAIN_FILE = "domain.txt"
REQUIRED = {
    "extract_skills.md": ("problem", "completion"),
    "extract_mistakes.md": ("problem", "completion"),
    "merge_skills.md": ("items",),
    "merge_mistakes.md": ("items",),
}
"""The prompt files, and the placeholders that each must contain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """Texts with placeholders such as ``{problem}``; other braces are literal."""

    extract_skills: str
    extract_mistakes: str
    merge_skills: str
    merge_mistakes: str

    @property
    def digest(self) -> str:
        """A digest of all texts, which keys cached answers."""
        return digest(asdict(self))


def load_prompts(folder: str | None = None, domain: str | None = None) -> Prompts:
    """Load the built-in prompts, each replaced by the file of its name in ``folder`` if there is one.

    Args:
        folder: None takes the built-in prompts only.
        domain: The text for ``{domain}``; None takes ``domain.txt``.

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
