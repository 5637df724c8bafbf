"""Measurements within a budget: what comes first, what fails, what is left for another call."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from processes import CHEAP

from benchmarks.gpu import schedule
from benchmarks.gpu.parts import PARTS, Part, Settings
from benchmarks.gpu.results import Results
from benchmarks.gpu.schedule import Schedule
from benchmarks.gpu.work import Work

ROOT = Path(__file__).parents[2]
SETTINGS = Settings("2x16", (4,), 8, tiny=True)
ABOUT = {"device": "none", "versions": {"none": "1"}, "sizes": "2x16-T8"}
PLENTY = 600


@pytest.fixture(autouse=True)
def parts_of_tests(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def part(name, *kinds, seconds=PLENTY):
    variants = {kind: {"kind": kind} for kind in kinds}
    return Part(name, seconds, "", "gpu_parts_for_tests", lambda settings: variants)


@pytest.fixture
def call(tmp_path):
    """Makes one call of the command; returns what it has not reached, reasons by part and name."""

    def run(*parts, budget=PLENTY + 60, again=False):
        deadline = time.monotonic() + budget
        results = Results(tmp_path, ABOUT)
        missing = Schedule(SETTINGS, results, deadline, again).run(parts)
        return {(row["part"], row["name"]): row["reason"] for row in missing}

    return run


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_part_or_a_variant_that_fails_does_not_stop_the_others(call, tmp_path):
    missing = call(part("first", "failing", "able"), part("second", "breaking"), part("third", "x"))
    assert missing == {
        ("first", "failing"): "failed: ValueError: bad luck and more of it",
        ("second", "breaking"): "exit code 1: RuntimeError: the last line of it",
    }
    found = [(row["part"], row["name"], row["status"]) for row in lines(tmp_path)]
    assert found == [
        ("first", "failing", "failed: ValueError: bad luck and more of it"),
        ("first", "able", "ok"),
        ("third", "x", "ok"),
    ]
    report = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert [row["name"] for row in report["Results"]] == ["failing", "able", "x"]
    assert [row["name"] for row in report["Not reached"]] == ["failing", "breaking"]
    assert "the last line of it" in (tmp_path / "summary.txt").read_text()


def test_a_part_whose_share_does_not_fit_is_listed_as_not_reached(call, tmp_path):
    missing = call(part("large", "x", seconds=PLENTY + 100), part("small", "y"))
    ((name, reason),) = missing.items()
    assert name == ("large", "x")
    assert reason.startswith(f"its {PLENTY + 100} s do not fit into the ")
    assert reason in (tmp_path / "gpu.md").read_text()
    assert [row["name"] for row in lines(tmp_path)] == ["y"]


def test_another_call_measures_what_is_missing_and_what_failed(call, tmp_path):
    call(part("one", "able", "failing"))
    call(part("one", "able", "failing", "new"))
    assert [row["name"] for row in lines(tmp_path)] == ["able", "failing", "failing", "new"]
    report = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert sorted(row["name"] for row in report["Results"]) == ["able", "failing", "new"]


def test_what_is_there_is_measured_again_only_if_asked_for(call, tmp_path):
    one = part("one", "able")
    assert call(one) == call(one) == {}
    assert len(lines(tmp_path)) == 1
    assert call(one, again=True) == {}
    assert len(lines(tmp_path)) == 2


def test_what_needs_a_library_is_measured_again_once_it_is_installed(call, tmp_path):
    Results(tmp_path, ABOUT).add("one", "able", "not installed (no_such_library)", {})
    reason = {("one", "able"): "not installed (no_such_library)"}
    assert call(part("one", "able")) == reason
    assert len(lines(tmp_path)) == 1
    Results(tmp_path, ABOUT).add("one", "able", "not installed (json)", {})
    assert call(part("one", "able")) == {}
    assert [row["status"] for row in lines(tmp_path)][2:] == ["ok"]


def test_half_a_line_of_a_killed_call_costs_that_line_only(call, tmp_path):
    call(part("one", "able", "other"))
    text = (tmp_path / "results.jsonl").read_text()
    (tmp_path / "results.jsonl").write_text(text[:-20])
    assert call(part("one", "able", "other")) == {}
    assert set(Results(tmp_path, ABOUT).rows()) == {("one", "able"), ("one", "other")}


def test_results_of_other_sizes_are_not_taken_for_these(tmp_path):
    Results(tmp_path, ABOUT).add("one", "able", "ok", {})
    assert Results(tmp_path, ABOUT | {"sizes": "3x1024-T128"}).rows() == {}


def test_a_part_that_overruns_its_share_is_ended(call):
    missing = call(part("slow", "x", seconds=schedule.GRACE + 0.1), part("next", "y"))
    assert missing == {("slow", "x"): "ended when its 3 s were over"}


# A process that does not heed SIGTERM, and one that it has started.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(child.pid, flush=True)
time.sleep(1000)
"""


def test_a_part_is_ended_with_every_process_that_it_has_started(monkeypatch):
    monkeypatch.setattr(schedule, "GRACE", 0.2)
    command = [sys.executable, "-c", STUBBORN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        child = int(process.stdout.readline())
        schedule.end_group(process)
        assert process.returncode == -signal.SIGKILL
        wait_until(lambda: not is_running(child))


def is_running(pid):
    """Whether a process runs; one that nobody has waited for does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until(condition):
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("still not so")


def test_a_part_begins_nothing_that_it_could_not_finish(monkeypatch, tmp_path):
    now = 0.0
    monkeypatch.setattr("benchmarks.gpu.work.time.monotonic", lambda: now)
    names = ["a", "b", "c", "d"]
    variants = {name: {} for name in names}
    work = Work("one", "none", 100.0, str(tmp_path), True, variants, names, ABOUT, began=0.0)
    begun = []
    for name, seconds in zip(work.in_time(names), (30, 10, 35, 10), strict=False):
        begun.append(name)
        now += seconds
    assert begun == ["a", "b", "c"]  # 25 s are left, and the slowest took 35


@pytest.fixture(scope="module")
def start(environment):
    """Starts `python -m benchmarks.gpu …`."""

    def begun(*arguments):
        command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment | CHEAP, cwd=ROOT, **pipes)

    return begun


@pytest.fixture(scope="module")
def command(start):
    """Runs `python -m benchmarks.gpu …`; returns the finished process."""

    def run(*arguments):
        with start(*arguments) as process:
            output, errors = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


@pytest.fixture(scope="module")
def rehearsal(command, tmp_path_factory):
    """The folder of a rehearsal of every part. Not to be changed."""
    folder = tmp_path_factory.mktemp("gpu")
    done = command("--tiny", "--budget_seconds=3600", f"--out={folder}")
    assert (folder / "gpu.md").read_text() in done.stdout, done.stdout + done.stderr
    return folder


def test_a_rehearsal_measures_every_part(rehearsal):
    rows = Results(rehearsal, ABOUT).rows()
    usual = [part for part in PARTS if not part.only_if_named]
    assert set(rows) == {(part.name, name) for part in usual for name in part.variants(SETTINGS)}
    allowed = ("ok", "skipped: ", "not installed (torch)")
    assert [row for row in rows.values() if not row["status"].startswith(allowed)] == []
    measured = [row for row in rows.values() if row["status"] == "ok"]
    on_a_cpu = {part.name for part in usual} - {"tune-kernels"}
    assert {row["part"] for row in measured} == on_a_cpu
    assert all(row["figures"] and row["device"] and row["date"] for row in measured)
    assert all(row["versions"]["jax"] for row in measured)
    table = (rehearsal / "gpu.md").read_text()
    assert all(name in table and part in table for part, name in rows)


def test_a_rehearsal_trains_ends_and_samples(rehearsal):
    row = Results(rehearsal, ABOUT).rows()["train", "charlstm"]
    assert row["figures"]["exit_codes"] == [75, 0]
    assert len((rehearsal / "train-sample.txt").read_bytes()) >= 300


def test_a_rehearsal_writes_which_kernels_take_longest(rehearsal):
    first, *kernels = (rehearsal / "profile-tune-B4-scan-unroll-8.txt").read_text().splitlines()
    assert first.endswith("2 updates")
    milliseconds = [float(line.split()[0]) for line in kernels]
    assert milliseconds == sorted(milliseconds, reverse=True) and len(kernels) == 25


def test_a_second_call_goes_on_where_the_first_has_left_off(rehearsal, command, tmp_path):
    kept = [line for line in lines(rehearsal) if line["part"] not in ("memory", "recipe")]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    done = command("--tiny", "--budget_seconds=100", f"--out={tmp_path}")
    added = [line["part"] for line in lines(tmp_path)[len(kept) :]]
    assert added == ["memory"], done.stdout + done.stderr
    assert done.returncode == 1
    assert "not reached: recipe: shakespeare: its 150 s do not fit" in done.stdout


def test_a_call_that_is_ended_ends_its_part_and_keeps_the_results(start, tmp_path):
    with start("--tiny", "--parts=correctness", f"--out={tmp_path}") as process:
        assert "== correctness" in process.stdout.readline()
        assert "scan gates float32" in process.stdout.readline()
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    wait_until(lambda: not any(is_running(child.pid) for child in below))
    report = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert report["Results"][0]["name"] == "scan gates float32" == lines(tmp_path)[0]["name"]
    assert report["Not reached"][-1]["reason"] == "the call was ended before its turn"


@pytest.mark.parametrize("flag", ["--parts=tune,tuna", "--model=large", "--batches=64,x"])
def test_a_wrong_flag_ends_with_one_line_before_anything_is_begun(command, tmp_path, flag):
    done = command(flag, f"--out={tmp_path / 'out'}")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"benchmarks.gpu: --{flag[2:7]}")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(command, tmp_path):
    (tmp_path / "file").touch()
    done = command(f"--out={tmp_path / 'file'}")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"benchmarks.gpu: --out={tmp_path / 'file'} cannot be written")


def test_help_shows_each_part_with_its_share(command):
    shown = command("--help").stdout
    for part in PARTS:
        assert any(part.name in line and f"{part.seconds} s" in line for line in shown.splitlines())
