"""The configuration reference: complete, the same as the file, and part of the command's help."""

import subprocess
import sys
from pathlib import Path

import pytest

from charlstm.config import Config, field_types, reference

FILE = Path(__file__).parents[2] / "docs" / "configuration.md"
FIELDS = [field for section in reference.sections() for field in section.fields]


def test_the_reference_has_every_field_in_order():
    assert [field.address for field in FIELDS] == list(field_types())


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.address)
def test_every_field_has_a_meaning_in_full_sentences(field):
    assert field.meaning.endswith(".") and len(field.meaning) > len("Size.")
    assert field.meaning == " ".join(field.meaning.split())


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.address)
def test_a_default_can_be_typed_as_it_is_written(field):
    given = Config().replace({field.address: field.default})
    assert given == Config()


def test_a_meaning_names_only_fields_that_exist():
    sections = {section.name for section in reference.sections()}
    for field in FIELDS:
        for word in field.meaning.replace("=", " ").split():
            section, dot, name = word.strip(".,:;()").partition(".")
            if section in sections and dot and name:
                assert f"{section}.{name}" in field_types(), f"{field.address}: {word}"


def test_the_file_is_what_the_fields_say():
    written = FILE.read_text(encoding="utf-8")
    command = "python -m charlstm.config.reference > docs/configuration.md"
    assert written == reference.as_markdown(), f"out of date: run `{command}`"


def test_tables_have_four_cells_in_every_row():
    rows = [line for line in reference.as_markdown().splitlines() if line.startswith("|")]
    assert len(rows) == len(FIELDS) + 2 * len(reference.sections())
    assert {row.count("|") for row in rows} == {5}


def test_the_help_of_train_names_every_field(charlstm):
    done = charlstm("train", "--help")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    for field in FIELDS:
        choices = f"<{'|'.join(field.choices)}>: " if field.choices else ""
        assert f"--config.{field.address}: {choices}{field.meaning} (default: " in words


@pytest.mark.parametrize("width", [80, 200])
def test_lines_of_the_help_fit_the_terminal(width):
    assert max(map(len, reference.as_text(width).splitlines())) <= width


def test_the_help_does_not_load_jax(environment):
    program = (
        "import sys; from charlstm.command_line import main; "
        "assert main(['charlstm', 'train', '--help']) == 0; "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
