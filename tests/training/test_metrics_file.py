"""`metrics.jsonl` holds figures and diagnoses, in the order of the updates."""

import json

import pytest
from absl import logging

from charlstm.errors import UserError
from charlstm.training.metrics_file import MetricsFile, parse, read_figures
from charlstm.training.writers import Writers

SAID = {"diagnosis": "overfitting", "message": "the network learns its text by heart"}


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_figures_made_up_for_join_the_last_line_that_has_some(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.write({"step": 5, "seconds": 1})
    file.write({"step": 10, "seconds": 2})
    file.write({"step": 10} | SAID)
    file.merge({"step": 10, "valid_nats": 1.5})
    file.write({"step": 15, "seconds": 3})
    file.close()
    assert lines_of(tmp_path) == [
        {"step": 5, "seconds": 1},
        {"step": 10, "seconds": 2, "valid_nats": 1.5},
        {"step": 10} | SAID,
        {"step": 15, "seconds": 3},
    ]
    assert [line["step"] for line in read_figures(tmp_path)] == [5, 10, 15]


def test_figures_made_up_for_join_the_line_of_metrics_and_not_what_a_hook_said_behind_it(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.write({"step": 5, "seconds": 1})
    file.write({"step": 10, "seconds": 2})
    file.write({"step": 10, "of_a_hook": 3})
    file.merge({"step": 10, "valid_nats": 1.5})
    file.close()
    assert lines_of(tmp_path) == [
        {"step": 5, "seconds": 1},
        {"step": 10, "seconds": 2, "valid_nats": 1.5},
        {"step": 10, "of_a_hook": 3},
    ]


def test_figures_can_be_made_up_for_where_there_are_none(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.merge({"step": 10, "valid_nats": 1.5})
    file.close()
    assert lines_of(tmp_path) == [{"step": 10, "valid_nats": 1.5}]


def test_what_was_said_of_updates_that_are_made_again_is_dropped(tmp_path):
    file = MetricsFile(tmp_path, 0)
    for step in (5, 10, 15):
        file.write({"step": step})
        file.write({"step": step} | SAID)
    file.close()
    MetricsFile(tmp_path, 10).close()
    assert [line["step"] for line in lines_of(tmp_path)] == [5, 5, 10, 10]


def test_no_run_has_no_figures(tmp_path):
    assert read_figures(tmp_path) == []


DAMAGE = [
    bytes(range(128, 256)).replace(b"\x85", b""),
    b"\x00" * 40,
    b"42",
    b"null",
    b'{"a": 1}',
    b'{"step": "x"}',
    b'{"step": true}',
    b'{"step": -1}',
    b'{"step": 1.5}',
    b"[" * 100_000,
    b'{"step": 10, "seco',
]


@pytest.fixture
def notices(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    return said


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: repr(damage[:12]))
def test_a_line_that_is_none_is_passed_over_by_all_who_read(damage):
    assert parse(damage) is None


def test_a_run_that_goes_on_keeps_damaged_lines_aside_and_says_how_many(tmp_path, notices):
    own = [b'{"step": 5, "train_bits_per_byte": 2.5}', b'{"step": 10}', b'{"step": 15}']
    path, aside = tmp_path / "metrics.jsonl", tmp_path / "metrics.jsonl.damaged"
    path.write_bytes(b"\n".join([own[0], *DAMAGE[:5], own[1], b"", *DAMAGE[5:], own[2]]))
    MetricsFile(tmp_path, 10).close()
    assert path.read_bytes() == own[0] + b"\n" + own[1] + b"\n"  # to the letter
    assert aside.read_bytes() == b"".join(line + b"\n" for line in DAMAGE)
    (said,) = notices
    assert f"{len(DAMAGE)} line(s) that are no figures" in said and aside.name in said
    # Nothing more is damaged, and nothing is said; what is damaged later is added.
    MetricsFile(tmp_path, 10).close()
    assert len(notices) == 1
    path.write_bytes(b"42\n")
    MetricsFile(tmp_path, 0).close()
    assert aside.read_bytes().splitlines() == [*DAMAGE, b"42"] and path.read_bytes() == b""


def test_figures_are_read_past_damaged_lines_and_before_one_that_is_being_written(
    tmp_path, notices
):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 5}\n42\n{"step": 10}\n{"step": 15')
    assert read_figures(tmp_path) == [{"step": 5}, {"step": 10}]
    (said,) = notices
    assert "1 line(s)" in said


def test_figures_made_up_for_join_no_line_of_another_update(tmp_path):
    """Where the line of their own update was damaged."""
    file = MetricsFile(tmp_path, 0)
    file.write({"step": 5, "seconds": 1})
    file.write({"step": 10} | SAID)
    file.merge({"step": 10, "valid_nats": 1.5})
    file.close()
    assert lines_of(tmp_path) == [
        {"step": 5, "seconds": 1},
        {"step": 10} | SAID,
        {"step": 10, "valid_nats": 1.5},
    ]


def test_making_up_for_figures_deletes_no_line(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.write({"step": 5})
    with (tmp_path / "metrics.jsonl").open("ab") as other:
        other.write(b"\xff\x00\n")
    file.merge({"step": 5, "valid_nats": 1.5})
    file.close()
    content = (tmp_path / "metrics.jsonl").read_bytes()
    assert content == b'{"step": 5, "valid_nats": 1.5}\n\xff\x00\n'


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.jsonl.damaged", "samples"])
def test_something_else_in_their_place_is_refused_before_anything_is_written(name, tmp_path):
    place = tmp_path / name
    if name == "samples":
        place.write_text("a file")
    else:
        place.mkdir()
    with pytest.raises(UserError, match=rf"{name}.*move it away") as caught:
        Writers.make(tmp_path, 0, {}, [])
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == [place]
