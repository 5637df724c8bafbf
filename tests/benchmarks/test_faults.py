"""The campaign of faults: it notices what is wrong, says how to see it again, and ends well."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults.campaign import KINDS, Campaign, Trial
from benchmarks.faults.ends import NUM_UPDATES, Keeping, NotSurvivedError, checkpoint
from benchmarks.faults.runs import Bench
from charlstm.checkpoint import digests

ROOT = Path(__file__).parents[2]
KEEPING = Keeping(checkpoint_every=1, keep_last=1, keep_every=1)  # of the undisturbed run


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def said():
    return []


@pytest.fixture
def campaign(bench, said):
    return Campaign(bench, said.append)


def test_damages_and_kills_are_survived(campaign, said):
    campaign.run_amounts({"damage": 6, "kill": 1}, seed=2)
    assert said == [] and campaign.failed == []
    assert campaign.tallies["damage"].survived == 6
    assert campaign.tallies["kill"].faults >= 1


def test_a_damage_that_nobody_notices_is_reported_with_its_seed(campaign, said, monkeypatch):
    monkeypatch.setattr(digests, "damage", lambda *arguments: "")
    campaign.run_amounts({"damage": 8}, seed=2)
    assert campaign.failed and len(said) == len(campaign.failed)
    for name, text in zip(campaign.failed, said, strict=True):
        assert f"FAILED {name}" in text and f"--only={name}" in text
        assert "expected: " in text and "found: " in text
        (folder,) = re.findall("kept: (.*)", text)
        assert (Path(folder) / "run" / "checkpoints").is_dir()


def test_a_campaign_with_a_failure_ends_with_exit_code_1_and_reports_it(bench, tmp_path):
    code = "import runpy; from charlstm.checkpoint import digests; digests.damage = lambda *_: ''"
    run = "runpy.run_module('benchmarks.faults', run_name='__main__', alter_sys=True)"
    bench.expected()
    flags = f"--out={tmp_path}", f"--folder={bench.folder}", "--amounts=damage=8", "--seed=2"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {run}", *flags],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "faults.json").read_text())
    (row,) = report["tables"]["Trials"]
    assert row["failed"] == len(row["trials_that_failed"]) == row["tried"] - row["survived"] > 0
    for name in row["trials_that_failed"]:
        assert f"FAILED {name} " in done.stderr
    assert report["versions"]["jax"] and "--seed=2" in report["command"]
    assert (tmp_path / "faults.md").read_text().strip() in done.stdout


def test_an_exception_that_is_no_promise_is_a_failure(campaign, said, monkeypatch):
    def broken(bench, rng, folder):
        raise KeyError("of no user's concern")

    monkeypatch.setitem(KINDS, "damage", broken)
    campaign.run(Trial("damage", 5))
    assert campaign.failed == ["damage:5"] and "of no user's concern" in said[0]


def test_a_trial_has_a_seed_of_its_own_that_follows_from_the_campaigns():
    trials = [Trial.of(kind, seed, n) for kind in KINDS for seed in (0, 1) for n in range(50)]
    assert len({trial.seed for trial in trials}) == len(trials)
    assert Trial.of("kill", 1, 2) == Trial.of("kill", 1, 2)


def test_no_trial_is_begun_when_there_is_no_time(campaign):
    campaign.run_for(0, list(KINDS), seed=0)
    assert campaign.tallies == {}


def lose_a_line(run):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:9] + lines[10:]))


def repeat_a_line(run):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:10] + lines[9:]))


def change_a_loss(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[9]["train_bits_per_byte"] += 1e-12
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def lose_a_sample(run):
    (run / "samples" / f"{NUM_UPDATES:08d}.txt").unlink()


def lose_a_checkpoint(run):
    shutil.rmtree(checkpoint(run, 24))


def exchange_the_last_parameters(run):
    shutil.rmtree(checkpoint(run, NUM_UPDATES) / "params")
    shutil.copytree(checkpoint(run, 39) / "params", checkpoint(run, NUM_UPDATES) / "params")


def leave_a_draft(run):
    (run / "checkpoints" / ".40.saving").mkdir()


@pytest.mark.parametrize(
    ("disturb", "complains_of"),
    [
        (lose_a_line, "40 lines of metrics"),
        (repeat_a_line, "40 lines of metrics"),
        (change_a_loss, "40 lines of metrics"),
        (lose_a_sample, "samples"),
        (lose_a_checkpoint, "checkpoints"),
        (leave_a_draft, "half written"),
        (exchange_the_last_parameters, "bit for bit"),
    ],
)
def test_an_end_that_differs_is_noticed(bench, tmp_path, monkeypatch, disturb, complains_of):
    monkeypatch.setattr(digests, "damage", lambda *arguments: "")  # the campaign is to notice
    expected = bench.expected()
    run = tmp_path / "run"
    shutil.copytree(expected.folder, run)
    expected.require_same_end(run, keeping=KEEPING)
    disturb(run)
    with pytest.raises(NotSurvivedError) as caught:
        expected.require_same_end(run, keeping=KEEPING)
    assert complains_of in caught.value.expected
