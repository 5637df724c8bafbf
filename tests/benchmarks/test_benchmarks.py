"""Every benchmark runs, tiny, as a real process, and reports; nothing is said of time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import CHEAP

import charlstm

ROOT = Path(__file__).parents[2]
QUICK = ("--rounds=2", "--turn_seconds=0.02")
SHAPE = "--shapes=2x8-B4-T8"

RUNS = {
    "train_throughput": (SHAPE, "--tiny", "--cpu_devices=1", "--nomemory", *QUICK),
    "sampling_throughput": ("--models=2x8", "--batch=1", "--tiny", "--torch_threads=1", *QUICK),
    "input_pipeline": (SHAPE, "--text_bytes=4000000", *QUICK),
    "checkpoint_stall": (SHAPE, *QUICK),
    "options": (SHAPE, "--options=dropout", *QUICK),
    "scaling": (SHAPE, "--devices=1,2", "--noweak", *QUICK),
}


@pytest.fixture
def benchmark(environment, tmp_path):
    """Runs `python -m benchmarks.NAME …`; returns its JSON."""

    def run(name, *arguments):
        command = [sys.executable, "-m", f"benchmarks.{name}", f"--out={tmp_path}", *arguments]
        done = subprocess.run(
            command,
            env=environment | CHEAP,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{name}.md").read_text().strip() in done.stdout
        return json.loads((tmp_path / f"{name}.json").read_text())

    return run


@pytest.mark.parametrize("name", RUNS)
def test_benchmark_runs_and_reports(benchmark, name):
    report = benchmark(name, *RUNS[name])
    assert f"benchmarks.{name}" in report["command"]
    rows = [row for rows in report["tables"].values() for row in rows]
    assert rows
    for row in rows:
        status = row.get("status", "ok")
        assert status == "ok" or status.startswith("not installed"), row
    ours = [row for row in rows if row.get("contestant", "").startswith("charlstm")]
    assert all(row["status"] == "ok" and row["bytes_per_second"] > 0 for row in ours)


def test_every_recurrence_that_is_asked_for_is_compared_with_all_that_it_can_keep(benchmark):
    arguments = ("--dtype=float32", "--recurrence=scan,split", "--shape=2x8-B4-T8")
    report = benchmark("correctness", *arguments)
    (rows,) = report["tables"].values()
    choices = [(row["recurrence"], row["residuals"]) for row in rows]
    assert choices == [("scan", "gates"), ("scan", "state"), ("split", "gates")]
    assert all(0 < row["gradient_error"] < 1e-5 for row in rows)


def test_peers_are_compared_with_what_was_measured_in_the_same_run(benchmark):
    peers = ("--peers=torch,plain", "--inputs=one-hot", "--precisions=float32", "--seeds=question")
    sizes = ("--shapes=1x8-B4-T4", "--seed_shapes=1x8-B4-T4", "--tiny")
    report = benchmark("peers", *peers, *sizes, *QUICK, "--keras_python=python-of-nobody")
    rows = {row["contestant"]: row for row in report["tables"]["1x8-B4-T4"]}
    ours, plain = rows["charlstm"], rows["plain lax.scan"]
    times = ours["bytes_per_second"] / plain["bytes_per_second"]
    assert plain["charlstm_is"] == pytest.approx(times)
    others = ("PyTorch nn.LSTM, one-hot, float32", "float32 products, PyTorch")
    assert all(rows[name]["status"] in ("ok", "not installed (torch)") for name in others)
    product = rows["float32 products, JAX"]["flops_per_second"]
    assert ours["share_of_product_rate"] == pytest.approx(ours["flops_per_second"] / product)
    seed = report["tables"]["the question's model, 1x8-B4-T4"][1]
    assert seed["contestant"] == "Keras 3, the question's script"
    assert seed["status"] == "not installed (python-of-nobody)"


SAME_UPDATES = """
from benchmarks.competitors.bare_training import BareProgram
from benchmarks.competitors.charlstm_training import Training
from charlstm.benchmark.shapes import Shape
from charlstm.training.program import Program
shape = Shape.parse("2x8-B4-T8").to_json()
spec = {"shape": shape, "cpu_devices": 1, "updates_per_dispatch": 250}
for kind in (Program, BareProgram):
    print(*(float(Training(spec, kind).advance(count).nats[count - 1]) for count in (1, 250)))
"""


def test_training_without_the_options_code_makes_the_same_updates(environment):
    command = [sys.executable, "-c", SAME_UPDATES]
    output = subprocess.check_output(command, env=environment | CHEAP, cwd=ROOT, text=True)
    lines = output.splitlines()
    ours, bare = ([float(word) for word in line.split()] for line in lines)
    assert ours[1] < ours[0]
    assert bare == pytest.approx(ours, rel=1e-5)


SMALL = """
from charlstm.config import Config, DataConfig, ModelConfig
def get_config():
    data = DataConfig(num_streams=4, window_length=8)
    return Config(model=ModelConfig(num_layers=1, hidden_size=16), data=data)
"""


def test_quality_is_read_from_a_run_of_charlstm_train(benchmark, text_file, tmp_path):
    (tmp_path / "small.py").write_text(SMALL)
    more = (f"--configs={tmp_path / 'small.py'}", "--seeds=", "--seconds=2", "--evaluations=2")
    report = benchmark("time_to_quality", f"--corpus={text_file}", *more)
    ((row,),) = report["tables"].values()
    assert row["status"] == "ok"
    assert len(row["curve"]) >= 2
    assert row["bits_per_byte"] == row["curve"][-1][1]


def test_a_watched_run_is_compared_with_itself(benchmark, text_file):
    small = ("model.hidden_size=8", "data.num_streams=4", "data.window_length=8")
    fields = [f"--field={field}" for field in small]
    arguments = (f"--corpus={text_file}", "--settle_seconds=0", "--every=1", *fields)
    report = benchmark("watching", *arguments, *QUICK)
    (rows,) = report["tables"].values()
    assert [row["watcher"] for row in rows] == ["at work", "held"]
    assert all(row["lines"] >= 2 and row["bytes_per_second"] > 0 for row in rows)
    assert rows[1]["ratio"] == 1


def test_recipe_that_is_cut_short_is_reported_as_far_as_it_got(
    benchmark, own_cache, text_file, tmp_path
):
    (tmp_path / "small.py").write_text(SMALL)
    config = charlstm.load_config(str(tmp_path / "small.py"))
    config = config.replace({"data.corpus": str(text_file), "training.num_updates": 10**6})
    charlstm.train(config, tmp_path / "runs" / "small", stop_after=5)
    fixed = [f"--corpus={text_file}", f"--runs={tmp_path / 'runs'}"]
    report = benchmark("recipes", f"--recipes={tmp_path / 'small.py'}", "--at_once=6", *fixed)
    (row,) = report["tables"]["Recipes"]
    assert row["status"] == "as far as it got"
    assert 0 < row["updates"] < row["planned"]
    assert row["valid_bits_per_byte"] > 0
    assert "valid_dynamic_bits_per_byte" not in row


def test_finished_recipe_is_scored_by_dynamic_evaluation_and_goes_no_further(
    benchmark, text_file, tmp_path
):
    (tmp_path / "small.py").write_text(SMALL)
    fixed = [f"--corpus={text_file}", f"--runs={tmp_path / 'runs'}", "--evaluations=2"]
    fixed += [f"--recipes={tmp_path / 'small.py'}", "--seconds=2"]
    (row,) = benchmark("recipes", *fixed)["tables"]["Recipes"]
    assert row["status"] == "finished"
    assert row["updates"] == row["planned"]
    assert row["test_dynamic_bits_per_byte"] > 0
    (again,) = benchmark("recipes", *fixed, "--nodynamic")["tables"]["Recipes"]
    assert again["updates"] == row["updates"]
    assert again["test_bits_per_byte"] == row["test_bits_per_byte"]


def test_mogrifier_is_held_against_the_plain_network(benchmark, text_file, tmp_path):
    text = repr(str(text_file))
    config = SMALL.replace("DataConfig(num", f"DataConfig(corpus={text}, num")
    config = config.replace(
        "model=Model", "optimizer=OptimizerConfig(warmup_updates=0), model=Model"
    )
    (tmp_path / "small.py").write_text(
        config.replace("ModelConfig\n", "ModelConfig, OptimizerConfig\n")
    )
    arguments = (f"--config={tmp_path / 'small.py'}", "--updates=6", "--block=2", "--embedding=8")
    report = benchmark("mogrifier", *arguments, "--gating_rounds=2")
    ((plain, gated),) = report["tables"].values()
    assert (plain["rounds"], plain["times"], gated["rounds"]) == (0, 1, 2)
    # Q [16, 8] and R [8, 16]
    assert gated["parameters"] - plain["parameters"] == 2 * 16 * 8
    assert len(plain["blocks_ms"]) == len(gated["blocks_ms"]) == 3
    assert gated["bits_per_byte"] != plain["bits_per_byte"]
