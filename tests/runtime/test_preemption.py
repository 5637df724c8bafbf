"""Signals at the moments that are hardest to meet."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import TINY


def test_signals_to_a_run_that_is_ending_change_nothing(text_file, environment, tmp_path):
    """A launcher that sees one process end with 75 sends SIGTERM to the rest."""
    command = [sys.executable, "-m", "charlstm", "train", f"--corpus={text_file}", *TINY]
    command += [f"--workdir={tmp_path}", "--config.training.num_updates=1000000"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "metrics.jsonl"  # made before the first update, its first line after some
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    said = process.communicate()[1]
    assert process.returncode == 75, said
    assert "saved at update" in said


def test_when_there_is_no_more_to_save_no_signal_ends_the_process():
    code = (
        "import os; from charlstm.runtime import preemption; preemption.ignore(); "
        "[os.kill(os.getpid(), number) for number in (2, 10, 15)]; print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout == b"alive\n"


def holds_back_signals(process):
    """Returns True if SIGTERM waits instead of ending the process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")]
    return int(mask, 16) >> (signal.SIGTERM - 1) & 1


def test_a_signal_in_the_first_second_ends_a_run_as_one_later_does(
    text_file, environment, tmp_path
):
    """Imports and the second start for huge pages take about a second; a signal waits for them."""
    command = [sys.executable, "-m", "charlstm", "train", f"--corpus={text_file}", *TINY]
    command += [f"--workdir={tmp_path}", "--config.training.num_updates=1000000"]
    ended = []
    for number, code in ((signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)):
        for delay in (0, 0.1, 0.3, 0.6):
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            while process.poll() is None and not holds_back_signals(process):
                time.sleep(0.001)
                assert not (tmp_path / "about.json").exists(), "it never held signals back"
            time.sleep(delay)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
            ended.append((number.name, delay, process.returncode == code, "Traceback" in said))
    assert all(is_right and not traceback for *_, is_right, traceback in ended), ended
