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
    assert found["diagnoses"] == [] and "dynamic" not in found


def test_dynamic_evaluation_stands_beside_the_static_one(evaluate):
    done = evaluate("--json", "--dynamic", "--split=test", "--temperature=fit")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    plain = json.loads(evaluate("--json", "--split=test").stdout)
    assert found["bits_per_byte_at_temperature_1"] == pytest.approx(plain["bits_per_byte"])
    dynamic = found["dynamic"]
    assert dynamic["bits_per_byte"] > 0 and dynamic["rule"]["kind"] == "rms"
    for scores in (found, dynamic):
        assert 0.5 <= scores["temperature"] <= 2 and scores["valid_bits_per_byte"] > 0
    # A network that does not learn has the static score, but for the rows' ends.
    frozen = ("--dynamic_rule=sgd", "--dynamic_learning_rate=0", "--dynamic_decay=0")
    still = json.loads(evaluate("--json", "--dynamic", "--split=test", *frozen).stdout)
    assert still["dynamic"]["bits_per_byte"] == pytest.approx(plain["bits_per_byte"], rel=1e-4)


def test_the_table_shows_temperature_and_dynamic_evaluation(evaluate):
    done = evaluate("--temperature=0.8", "--dynamic", "--warm_up=100", "--dynamic_segment=7")
    assert done.returncode == 0, done.stderr
    for words in ("charlstm, dynamic", "  temperature 0.8", "bigram"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--temperature=0", "--temperature=0 must be a number from 1e-6 to 1e6, or fit"),
        ("--warm_up=-1", "--warm_up=-1 must be 0 or more"),
        ("--dynamic_segment=0", "--dynamic_segment=0 must be 1 or more"),
    ],
)
def test_flags_out_of_range_are_refused_in_a_line(evaluate, flag, says):
    done = evaluate("--dynamic", flag)
    assert done.returncode == 2 and says in done.stderr
    assert len(done.stderr.splitlines()) == 1


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
