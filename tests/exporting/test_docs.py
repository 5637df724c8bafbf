"""The lines of docs/exports.md run as they are printed, and give what charlstm gives."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from exported_models import make_model

import charlstm as library
from charlstm import exporting, importing
from charlstm.checkpoint import exported
from charlstm.importing import run

PAGE = Path(__file__).parents[2] / "docs" / "exports.md"
PROMPT = b"some words"  # the small text has no upper case and no punctuation

pytestmark = pytest.mark.usefixtures("own_cache")


def lines_of(section, number=0):
    """The Python of a section of the page, for the tests' model."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)[1]
    block = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)[number]
    return block.replace('b"To be, or not to be"', repr(PROMPT))


@pytest.fixture
def executed(trained, tmp_path, monkeypatch):
    """Runs lines in a folder with a file of the trained model; returns what they define."""
    monkeypatch.chdir(tmp_path)

    def run_lines(lines, kind, **given):
        path = tmp_path / f"my.{kind}"
        if not path.exists():
            exporting.export(str(trained), kind, path)
        exec(compile(lines, str(PAGE), "exec"), given)
        return given

    return run_lines


def test_the_lines_for_pytorch_give_the_same_logits(executed, trained):
    pytest.importorskip("torch")
    lines = lines_of("safetensors")
    assert lines.count("\n") <= 16
    logits = executed(lines, "safetensors")["logits"].detach().numpy()
    wanted = library.load(trained).logits(PROMPT)
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5)


def test_the_lines_for_pytorch_read_embeddings_and_bfloat16_too(executed, tmp_path):
    pytest.importorskip("torch")
    model, metadata = make_model("embedding")
    content = exported.encoded(model.params, metadata, "bfloat16")
    (tmp_path / "my.safetensors").write_bytes(content)
    lines = lines_of("safetensors").replace(repr(PROMPT), "b'a bad bee'")
    logits = executed(lines, "safetensors")["logits"].detach().numpy()
    wanted = library.load(tmp_path / "my.safetensors").logits("a bad bee")
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5)


def test_the_lines_for_onnxruntime_write_what_charlstm_writes(executed, trained):
    found = executed(lines_of("ONNX"), "onnx")
    model = library.load(trained)
    assert found["text"] == PROMPT + model.generate(PROMPT, 100, temperature=0)
    wanted = model.logits(found["text"][:-1])[-1]
    np.testing.assert_allclose(found["logits"][-1, 0], wanted, rtol=0, atol=1e-5)


def test_the_lines_for_jax_give_the_same_logits(executed, trained):
    logits = executed(lines_of("StableHLO"), "stablehlo")["logits"]
    wanted = library.load(trained).logits(PROMPT)
    np.testing.assert_allclose(logits[:, 0], wanted, rtol=0, atol=1e-5)


def test_a_model_of_pytorch_is_saved_and_imported_as_the_page_says(executed, text_file, tmp_path):
    torch = pytest.importorskip("torch")
    shutil.copy(text_file, tmp_path / "my.txt")
    size = len(set(text_file.read_bytes()))
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {"lstm": torch.nn.LSTM(size, 10, 2), "head": torch.nn.Linear(10, size)}
    )
    executed(lines_of("Import"), "safetensors", model=model)
    folder = run.write(importing.read("lstm.safetensors"), "mine")
    alphabet = sorted(set(text_file.read_bytes()))
    symbols = torch.tensor([alphabet.index(byte) for byte in PROMPT])
    with torch.no_grad():
        outputs, _ = model["lstm"](torch.eye(size)[symbols])
        wanted = model["head"](outputs).numpy()
    np.testing.assert_allclose(library.load(folder).logits(PROMPT), wanted, rtol=0, atol=1e-5)
