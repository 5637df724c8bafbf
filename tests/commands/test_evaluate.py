"""`charlstm evaluate` as users run it."""

import json
import math

import pytest


@pytest.fixture
def evaluate(charlstm, trained):
    return lambda *arguments: charlstm("evaluate", f"--checkpoint={trained}", *arguments)


def test_json_has_the_figures_of_the_runs_own_validation(evaluate, trained):
    done = evaluate("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    best = min(line["valid_bits_per_byte"] for line in lines if "valid_bits_per_byte" in line)
    assert found["bits_per_byte"] == pytest.approx(best, rel=1e-6)
    assert found["nats"] == pytest.approx(found["bits_per_byte"] * math.log(2))
    assert 0 <= found["accuracy"] <= 1
    assert found["num_bytes"] == math.floor(0.05 * 11_999)
    assert [level["order"] for level in found["ngram_levels"]] == list(range(6))


def test_any_text_is_scored_whole(evaluate, tmp_path):
    (tmp_path / "other.txt").write_text("quite other words of no use\n" * 9)
    found = json.loads(evaluate("--json", f"--corpus={tmp_path / 'other.txt'}").stdout)
    assert found["split"] == "all" and found["num_bytes"] == 28 * 9


def test_a_single_byte_is_scored(evaluate, tmp_path):
    (tmp_path / "one.txt").write_text("a")
    found = json.loads(evaluate("--json", f"--corpus={tmp_path / 'one.txt'}").stdout)
    assert found["num_bytes"] == 1 and found["bits_per_byte"] > 0


def test_the_table_shows_model_and_levels(evaluate):
    done = evaluate("--split=test")
    assert done.returncode == 0, done.stderr
    for word in ("charlstm", "byte frequencies", "bigram", "6-gram"):
        assert word in done.stdout


def test_a_byte_outside_the_alphabet_is_refused(evaluate, tmp_path):
    (tmp_path / "digits.txt").write_text("one 1")
    done = evaluate(f"--corpus={tmp_path / 'digits.txt'}")
    assert done.returncode == 2
    assert "0x31" in done.stderr and "offset 4" in done.stderr
    assert len(done.stderr.splitlines()) == 1
