"""The notebook in `docs/` runs from its first cell to its last, in a real kernel."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def text_of(cell):
    """What a cell printed or returned."""
    found = []
    for output in cell["outputs"]:
        found.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "".join(found)


def test_the_notebook_runs_and_its_claims_hold(tmp_path, monkeypatch, environment, text_file):
    for name in ("XDG_CACHE_HOME", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, environment[name])
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # The same cells on a small text, which needs no network.
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[0].source += f'\nconfig = config.replace({{"data.corpus": {str(text_file)!r}}})'
    for cell in code:
        cell.source = cell.source.replace("ROMEO", "words").replace("JULIET\\n", "words")
        cell.source = cell.source.replace(
            "To be, or not to be, that is the question", "a few words"
        )
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *_, watched, bits, shape, texts, same = code
    assert text_of(watched).count("bits per byte") == 3
    assert 0 < float(text_of(bits)) < 20
    assert text_of(shape).startswith("((5, ")
    assert text_of(texts).count("---") == 3
    assert text_of(same) == "True"
