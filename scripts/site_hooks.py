"""Hooks of mkdocs (mkdocs.yml): puts pages that are kept outside docs/ into the site, and makes links to them work.

- README-like files of the repository's root, and those of benchmarks/, become pages as they are.
- Each script of examples/ becomes a page with its docstring and its code; a notebook becomes a page with its cells.
- A link from any page to a file of the repository leads to that file's page. A link to a file that has no page is an
  error, as any broken link is.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = ("CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md")
PAGES += ("benchmarks/ARENA.md", "benchmarks/RESULTS.md")
LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
CODE = re.compile(r"(```.*?```)", re.DOTALL)


def example_pages() -> dict[str, str]:
    """Return the page of each example by its path in the repository."""
    pages = {}
    for path in sorted((ROOT / "examples").glob("*.py")):
        pages[f"examples/{path.name}"] = script_page(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        pages[f"examples/{path.name}"] = notebook_page(json.loads(path.read_text(encoding="utf-8")))
    return pages


def script_page(code: str) -> str:
    """Return a page with the docstring of a script as text and the rest as code."""
    tree = ast.parse(code)
    doc = ast.get_docstring(tree) or ""
    title, _, text = doc.partition("\n\n")
    rest = "\n".join(code.splitlines()[tree.body[0].end_lineno :]).strip("\n")
    return f"# {title.rstrip('.')}\n\n{text}\n\n```python\n{rest}\n```\n"


def notebook_page(notebook: dict[str, Any]) -> str:
    """Return a page with the texts and the code of a notebook's cells."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"


def places() -> dict[str, str]:
    """Return the page of the site for each file of the repository that has one."""
    found = {f"docs/{path.relative_to(ROOT / 'docs').as_posix()}": path.relative_to(ROOT / "docs").as_posix()
             for path in (ROOT / "docs").rglob("*") if path.is_file()}  # fmt: skip
    found |= {name: posixpath.basename(name) for name in PAGES}
    found |= {name: posixpath.splitext(name)[0] + ".md" for name in example_pages()}
    return found | {"README.md": "index.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are kept outside docs/."""
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, posixpath.basename(name), content=text))
    for name, text in example_pages().items():
        files.append(File.generated(config, places()[name], content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite links to files of the repository into links to their pages. Code stays as it is."""
    pages = places()
    source = next((name for name, place in pages.items() if place == page.file.src_uri), f"docs/{page.file.src_uri}")
    folder = posixpath.dirname(source)

    def rewritten(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        place = pages.get(posixpath.normpath(posixpath.join(folder, target)))
        if place is None:
            return match[0]
        relative = posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{text}]({relative}{anchor})"

    parts = CODE.split(markdown)
    return "".join(part if n % 2 else LINK.sub(rewritten, part) for n, part in enumerate(parts))
