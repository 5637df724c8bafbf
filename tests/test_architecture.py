"""The floors of the code, and the page that shows them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import floors


def test_every_part_uses_floors_below_it_only():
    levels = {part: level for level, floor in enumerate(floors.FLOORS) for part in floor}
    used = floors.imports()
    assert set(used) == set(levels)
    wrong = [
        f"{part} uses {below}"
        for part, parts in used.items()
        for below in parts
        if levels[below] <= levels[part]
    ]
    assert wrong == []


def test_the_picture_in_the_page_is_that_of_the_code():
    page = floors.PAGE.read_text()
    assert page == floors.page_with_picture(page), "run: python docs/floors.py --write"


def test_every_file_that_the_page_names_exists():
    import re

    text = floors.PAGE.read_text()
    named = set(re.findall(r"`((?:charlstm|docs|launch|tests|benchmarks)/[\w/.-]+)`", text))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (floors.ROOT / name).exists()] == []
