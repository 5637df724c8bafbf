"""Reports hold what was measured, on what, and by which command."""

import json
import sys

import pytest

from benchmarks import reporting
from benchmarks.reporting import Column, Report, markdown_table

COLUMNS = (Column("name", "competitor"), Column("rate", "bytes/s", reporting.short))
ROWS = [{"name": "ours", "rate": 48_200.0}, {"name": "a|b", "status": "not installed (torch)"}]


def test_a_table_is_aligned_and_a_missing_value_leaves_its_cell_empty():
    lines = markdown_table(ROWS, COLUMNS).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["competitor", "bytes/s"]
    assert lines[2].split() == ["|", "ours", "|", "48.2k", "|"]
    assert lines[3].startswith(r"| a\|b ")
    assert len({len(line) for line in lines}) == 1


def test_a_report_is_json_and_markdown_with_all_that_tells_what_was_measured(tmp_path, capsys):
    report = Report("speed", "Speed", tmp_path)
    report.learn({"versions": {"jax": "0.10"}, "device": "2 × cpu"})
    report.table("2x16", COLUMNS).extend(ROWS)
    report.write()
    values = json.loads((tmp_path / "speed.json").read_text())
    assert values["benchmark"] == "speed"
    assert values["tables"] == {"2x16": ROWS}
    assert values["versions"]["jax"] == "0.10"
    assert values["machine"]["cores"] >= 1
    assert values["machine"]["cpu"]
    assert values["machine"]["devices"] == ["2 × cpu"]
    assert {"date", "command", "revision"} <= values.keys()
    text = (tmp_path / "speed.md").read_text()
    assert "## 2x16" in text and "48.2k" in text and "jax 0.10" in text
    assert capsys.readouterr().out.strip() == text.strip()


def test_a_report_without_matplotlib_says_that_there_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = Report("speed", "Speed", tmp_path)
    report.table("2x16", COLUMNS).extend(ROWS)
    report.write(lambda figure: None, say=False)
    assert "matplotlib is not installed" in (tmp_path / "speed.md").read_text()


def test_a_report_has_its_picture(tmp_path):
    pytest.importorskip("matplotlib")
    report = Report("speed", "Speed", tmp_path)
    report.write(lambda figure: figure.subplots().plot([1, 2]), say=False)
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
