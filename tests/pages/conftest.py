"""The page to write with, and its server, whose every answer is known."""

import completions
import pytest

from charlstm.pages import play


@pytest.fixture
def server():
    with completions.serving(play.render_served()) as running:
        yield running


@pytest.fixture
def page(open_page, server):
    return open_page(server.url)
