"""Signals at the moments that are hardest to meet."""

import signal
import subprocess
import sys
import time

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
