"""The sweep with Optuna in launch/README.md runs as it is printed, with small networks."""

import json
import re
import subprocess
import sys

import pytest
from launched_runs import LAUNCH
from processes import CHEAP
from run_folders import checkpoints, metrics

# Stands in front of the README's own lines: a small experiment in the quickstart's place, and the
# values that are tried. Of four trials the last learns too slowly to keep up.
SMALL = """
import charlstm, optuna

small = charlstm.load_config("quickstart").replace(
    {{
        "data.corpus": {text!r},
        "data.num_streams": 4,
        "data.window_length": 8,
        "model.hidden_size": 16,
        "optimizer.warmup_updates": 5,
        "training.num_updates": 200,
        "training.evaluate_every": 50,
        "training.sample_every": 0,
    }}
)
charlstm.load_config = {{"quickstart": small}}.__getitem__
create_study = optuna.create_study

def create_with_trials(**given):
    study = create_study(**given, pruner=optuna.pruners.MedianPruner(n_startup_trials=3))
    for rate in (2e-2, 2.5e-2, 3e-2, 3e-3):
        study.enqueue_trial({{"learning_rate": rate, "dropout": 0.0}})
    return study

optuna.create_study = create_with_trials
"""

# Stands behind them.
SHOW = """
import json
print(json.dumps([[trial.state.name, trial.intermediate_values] for trial in study.trials]))
"""


@pytest.fixture(scope="module")
def sweep(environment, text_file, tmp_path_factory):
    """The folder of the sweep, and the lines that it printed."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (LAUNCH / "README.md").read_text(), re.M | re.S)
    assert block.count("n_trials=20") == 1
    folder = tmp_path_factory.mktemp("sweep")
    script = folder / "sweep.py"
    small = SMALL.format(text=str(text_file))
    script.write_text(small + block.replace("n_trials=20", "n_trials=4") + SHOW)
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env=environment | CHEAP | {"PYTHONPATH": str(LAUNCH.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.splitlines()


def test_a_trial_that_falls_behind_is_ended_and_the_others_are_trained(sweep):
    folder, lines = sweep
    *finished, (state, reported) = json.loads(lines[-1])
    assert [name for name, _ in finished] == ["COMPLETE"] * 3
    assert state == "PRUNED" and set(reported) < {"50", "100", "150", "200"}
    runs = [folder / "runs" / "sweep" / str(number) for number in range(4)]
    assert [checkpoints(run)[-1] for run in runs[:3]] == [200, 200, 200]
    assert checkpoints(runs[3])[-1] == max(map(int, reported)) < 200


def test_optuna_is_told_what_the_runs_measured(sweep):
    folder, lines = sweep
    best = []
    for number, (_, reported) in enumerate(json.loads(lines[-1])):
        measured = {
            str(line["step"]): line["valid_bits_per_byte"]
            for line in metrics(folder / "runs" / "sweep" / str(number))
            if "valid_bits_per_byte" in line
        }
        assert reported == measured
        best.append(min(measured.values()))
    assert lines[-2].startswith(f"{min(best[:3]):.4f} bits per byte with {{'learning_rate': ")
