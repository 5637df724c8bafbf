"""The training that is measured: its memory and its ceiling are those of `charlstm compile`."""

import pytest

from charlstm.benchmark import training
from charlstm.benchmark.fields import config_of
from charlstm.benchmark.shapes import Shape, text_of
from charlstm.benchmark.training import Training
from charlstm.compilation import compiling
from charlstm.compilation.chips import CHIPS
from charlstm.compilation.compiling import Machine, Subject, compile_for
from charlstm.errors import UserError

SHAPE = Shape.parse("1x8-B4-T8")


@pytest.fixture(scope="module")
def trained():
    """Training that is compiled and not begun."""
    return Training(config_of(SHAPE, {}), text_of(SHAPE))


def test_memory_and_ceiling_are_those_of_charlstm_compile(trained, monkeypatch):
    for module in (training, compiling):
        monkeypatch.setattr(module, "chip_of_kind", lambda kind: CHIPS["h100"])
    subject = Subject(trained.config, trained.alphabet, len(trained.text))
    report = compile_for(subject, Machine.here(), find_largest=False)
    assert trained.require_memory() == report.memory
    assert trained.ceiling() == report.ceiling


def test_a_chip_whose_figures_are_not_known_has_no_ceiling(trained):
    assert trained.ceiling() is None


def test_a_device_with_too_little_memory_is_refused_with_both_figures(trained, monkeypatch):
    monkeypatch.setattr(training, "available_bytes", lambda: 2**20)
    with pytest.raises(UserError, match=r"needs [\d.]+ MiB of each device, which has 1.0 MiB"):
        trained.require_memory()
