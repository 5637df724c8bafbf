"""The README's Python runs as it is printed, on a small text and with a small network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"

# Stands in front of the README's own lines: a small experiment in the quickstart's place.
SMALL = """
import charlstm

quickstart = charlstm.load_config("quickstart").replace(
    {{
        "data.corpus": {text!r},
        "data.num_streams": 4,
        "data.window_length": 8,
        "model.hidden_size": 16,
        "training.num_updates": 1000,
        "training.log_every": 100,
        "training.evaluate_every": 0,
        "training.sample_every": 0,
    }}
)
charlstm.load_config = lambda name: {{"quickstart": quickstart}}[name]
"""


def test_the_api_and_the_hook_of_the_readme_run(tmp_path, environment, text_file, trained):
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
    assert len(blocks) == 2
    # The small text has no upper case and no punctuation.
    lines = "".join(blocks).replace("ROMEO", "words").replace("To be, or not to be", "a few words")
    lines = lines.replace('"model.hidden_size": 512', '"model.hidden_size": 24')
    shutil.copytree(trained, tmp_path / "runs" / "quickstart")
    script = tmp_path / "readme.py"
    script.write_text(SMALL.format(text=str(text_file)) + lines)
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(README.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"^(500|1000) ", done.stdout, re.M)
    assert printed == ["500", "1000"]
    metrics = (tmp_path / "runs" / "hooked" / "metrics.jsonl").read_text()
    assert metrics.count('"distinct_bytes"') == 2
    assert (tmp_path / "runs" / "wide" / "checkpoints" / "1000").is_dir()
