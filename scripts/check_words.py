"""Check that code and texts use plain English: no word of words.txt outside its allow-list. Part of `make lint`.

Exit code 1 with one line for each place. scripts/words.txt has one entry for each line: `word`, or `allow path: text`,
which allows lines that contain `text` in the files that match `path` (a glob).
"""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).parent / "words.txt"
SUFFIXES = (".py", ".md", ".cfg", ".toml", ".ipynb")


def read_list(path: Path) -> tuple[re.Pattern[str], list[tuple[str, str]]]:
    """Return a pattern of the words, and the allowed (glob, text) pairs."""
    words, allowed = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("allow "):
            place, _, text = line.removeprefix("allow ").partition(": ")
            allowed.append((place, text))
        elif line and not line.startswith("#"):
            words.append(re.escape(line))
    return re.compile(rf"(?<![\w-])({'|'.join(words)})(?![\w-])", re.IGNORECASE), allowed


def tracked_files() -> list[Path]:
    """Return the text files of the repository that people read."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.splitlines()]
    return [path for path in paths if path.suffix in SUFFIXES and path.is_file() and not path.is_symlink()]


def faults() -> list[str]:
    """Return one line `path:line: word` for each word that is not allowed."""
    pattern, allowed = read_list(LIST)
    found = []
    for path in tracked_files():
        name = path.relative_to(ROOT).as_posix()
        texts = [text for place, text in allowed if fnmatch(name, place)]
        if "" in texts:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            # snake_case names are read as words: `told_before` holds `told`
            for match in pattern.finditer(line.replace("_", " ")):
                if not any(text in line for text in texts):
                    found.append(f"{name}:{number}: '{match[1]}'")
    return found


if __name__ == "__main__":
    lines = faults()
    print("\n".join(lines) if lines else "no word of scripts/words.txt is used")
    sys.exit(bool(lines))
