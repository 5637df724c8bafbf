"""Where properties hold, marked by hand under the text: ^ where it holds."""

import numpy as np
import pytest

from charlstm.errors import UserError
from charlstm.inspection import properties


def named(text, name, patterns=()):
    array = np.frombuffer(text, np.uint8)
    return next(p for p in properties.properties_of(array, patterns) if p.name == name)


def marks(mask):
    return "".join("^" if held else " " for held in mask)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("inside quotes", 'a "bc" "d" e', "  ^^^  ^^   "),
        ("inside quotes", 'a "bc\n\nd" "e" ', "        ^^     "),
        ("inside brackets", "a (b[c]) d]", "  ^^^^^    "),
        ("inside brackets", ":( (a) [b", "   ^^    "),
        ("inside brackets", "(a [b) c]", "^^^^^    "),
        ("inside braces", "if {a{b}c} }", "   ^^^^^^   "),
        ("upper case", "aB C", " ^ ^"),
        ("end of word", "ab c, d", " ^ ^  ^"),
        ("speaker name", "ROMEO\nO, Juliet\n", "^^^^^           "),
        ("speaker name", "First Citizen:\nBefore\n", "^^^^^^^^^^^^^"),
        ("speaker name", "ann: hi\nBob: hi\n", "        ^^^     "),
    ],
)
def test_a_property_holds_where_it_is_marked(name, text, wanted):
    found = named(text.encode(), name)
    assert marks(found.holds).rstrip() == wanted.rstrip()


def test_curly_quotes_enclose_what_is_between_them():
    text = "“ab” “c".encode()
    assert marks(named(text, "inside quotes").holds) == "^^^^^" + " " * 8


def test_late_in_the_line_is_beyond_the_median_column():
    late, column = properties.late_in_line(np.frombuffer(b"abcdef\nab\nabcd", np.uint8))
    # Columns 1 2 3 4 5 6 0 1 2 0 1 2 3 4, whose median is 2; the line break itself is column 0.
    assert column == 2
    assert marks(late) == "  ^^^^      ^^"


def test_letters_are_compared_with_letters():
    found = named(b"a1B!", "upper case")
    assert marks(found.among) == "^ ^ " and marks(found.holds) == "  ^ "


def test_a_users_pattern_marks_its_matches_or_their_group():
    assert marks(properties.matches(b"the them the", r"\bthe\b")) == "^^^      ^^^"
    assert marks(properties.matches(b"a=1 b=2", r"\w=(\d)")) == "  ^   ^"
    assert marks(properties.matches("über é".encode(), "ü|é")) == "^^    ^^"
    assert marks(properties.matches(b"ab", "(x)?b")) == "  "
    with pytest.raises(UserError, match="no regular expression"):
        properties.matches(b"a", "(")
    found = named(b"x<y", "/<b>/", ["<b>"])
    assert not found.holds.any()
