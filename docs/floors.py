"""Draws the floors of charlstm from the code's own imports.

python docs/floors.py            # prints the picture
python docs/floors.py --write    # puts it into docs/architecture.md
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- floors: begin -->\n", "<!-- floors: end -->\n"

# From the top down. A floor may use those below it and never one above or beside it.
FLOORS: list[dict[str, str]] = [
    {"command_line": "finds a command, and turns its end into an exit code"},
    {"commands": "parse flags, call the library, print"},
    {
        "report": "a page with the curves of runs",
        "inspection": "a page with the cells of a model",
        "benchmark": "how fast training and sampling are",
        "exporting": "models in formats that other programs read",
        "serving": "completions over HTTP",
        "importing": "run folders of models in one file",
    },
    {"compilation": "compiling for chips that are not there"},
    {"training": "the loop, its hooks, and what a run owns"},
    {"text_model": "charlstm.Model: bytes in, bytes and figures out"},
    {
        "evaluation": "bits per byte, dynamic evaluation, temperature",
        "sampling": "the decode loop",
        "pages": "what pages share: HTML, charts, scripts",
    },
    {"checkpoint": "write, read, find again"},
    {"model": "parameters, cells, time loops, the walk over layers"},
    {"data": "corpora, alphabets, streams, n-gram tables"},
    {"storage": "run folders and texts in object stores"},
    {
        "config": "fields, checks, the named experiments in configs/",
        "runtime": "processes, devices, signals, shardings, targets",
    },
    {"errors": "what a user is meant to see"},
]


def imports() -> dict[str, set[str]]:
    """Returns the parts of charlstm that each part imports, those for type checkers left out."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "charlstm").rglob("*.py")):
        part = path.relative_to(ROOT / "charlstm").parts[0].removesuffix(".py")
        if part.startswith("__"):
            continue
        tree = ast.parse(path.read_text())
        names = found.setdefault(part, set())
        for name in _imported(tree):
            if name.startswith("charlstm."):
                names.add(name.split(".")[1])
        names.discard(part)
    # The experiments are the configuration's own.
    found["config"] |= found.pop("configs") - {"config"}
    return {part: names - {"configs"} for part, names in found.items()}


def _imported(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        names += _imported(node)
    return names


def picture() -> str:
    """Returns the floors as a Markdown table: each part, what it is for, and what it uses."""
    used = imports()
    order = [part for floor in FLOORS for part in floor]
    lines = ["| floor | part | is for | uses |", "|---|---|---|---|"]
    for number, floor in zip(range(len(FLOORS), 0, -1), FLOORS, strict=True):
        for part, purpose in floor.items():
            below = ", ".join(sorted(used.get(part, set()), key=order.index)) or "-"
            lines.append(f"| {number} | `{part}` | {purpose} | {below} |")
    return "\n".join(lines) + "\n"


def page_with_picture(page: str) -> str:
    """Returns the page with the picture as the code is now."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return before + BEGIN + picture() + END + after


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page_with_picture(PAGE.read_text()))
    else:
        print(picture(), end="")
