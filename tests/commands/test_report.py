"""`charlstm report` as users run it, its pages in a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from conftest import TINY, wait_until


@pytest.fixture(scope="module")
def nasty(trained, tmp_path_factory):
    """The trained run under a name of markup, with samples of everything that could go wrong."""
    folder = tmp_path_factory.mktemp("nasty") / "<img src=x onerror=alert(1)>"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("checkpoints"))
    sample = b"</pre><script>alert(2)</script>\x00\xff\xe2\x80\xae" + "שלום".encode()
    (folder / "samples" / "00000030.txt").write_bytes(sample)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["corpus"] = "</script><script>alert(3)</script>"
    config["model"]["hidden_size"] = 17
    (folder / "config.json").write_text(json.dumps(config))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"goodput": 0.75, "lost_seconds": {"<b>compile": 3.25, "save": 1}}
    lines.append({"step": 40, "diagnosis": "overfitting", "message": "<b>by heart</b>"})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    trace = folder / "profile" / "plugins" / "perfetto_trace.json.gz"
    trace.parent.mkdir(parents=True)
    trace.touch()
    return folder


@pytest.fixture(scope="module")
def pages(charlstm, trained, nasty, tmp_path_factory):
    """Reports of the trained run, of the nasty one, of both, and of one that tells little."""
    folder = tmp_path_factory.mktemp("reports")
    bare = folder / "bare"
    bare.mkdir()
    shutil.copy(trained / "config.json", bare)
    (bare / "metrics.jsonl").write_text('{"step": 5, "seconds": 1, "train_bits_per_byte": 7.5}\n')
    commands = {"one": [trained], "nasty": [nasty], "both": [trained, nasty], "bare": [bare]}
    for name, runs in commands.items():
        output = f"--output={folder / name}.html"
        done = charlstm("report", runs[0], output, *runs[1:])
        assert done.returncode == 0 and done.stdout == "", done.stderr
    return folder


def test_a_report_says_what_was_wrong(pages):
    """What is not of the model is text, as everywhere on the page."""
    page = (pages / "nasty.html").read_text()
    assert "What is wrong" in page and "&lt;b&gt;by heart&lt;/b&gt;" in page
    assert "What is wrong" not in (pages / "one.html").read_text()


def chart(page, title):
    return page.locator("figure", has=page.get_by_role("heading", name=re.compile(f"^{title}")))


def test_a_report_shows_the_run(open_page, pages, trained):
    page = open_page(pages / "one.html")
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    best = min(line["valid_bits_per_byte"] for line in lines if "valid_bits_per_byte" in line)
    text = page.locator("body").inner_text()
    assert f"{best:.3f}" in page.locator(".tile").first.inner_text()
    assert "finished: update 40 of 40" in text
    titles = ["Bits per byte", "Loss", "Accuracy", "Throughput", "Learning rate", "Gradient norm"]
    for title in titles:
        assert chart(page, title).locator("svg path[stroke-width]").count() > 0
    drawn = chart(page, "Bits per byte").locator("svg").text_content()
    for level in ("byte frequencies", "bigram", "trigram"):
        assert level in drawn
    samples = page.locator(".samples article")
    assert [samples.nth(i).locator("h3").inner_text().split(" ·")[0] for i in range(3)] == [
        "update 5",
        "update 20",
        "update 40",
    ]
    for words in ("Final evaluation", "6-gram", "hidden_size", "clip_norm", "jax", "cpu", "27 "):
        assert words in text or words == "27 "


def test_curves_are_drawn_against_updates_seconds_or_bytes(open_page, pages):
    page = open_page(pages / "one.html")
    axis = chart(page, "Loss").locator("svg .role-axis-title")
    assert axis.first.text_content() == "updates"
    page.get_by_role("button", name="bytes read").click()
    wait_until(
        page, "document.querySelector('#chart-1 .role-axis-title').textContent === 'bytes read'"
    )
    assert page.get_by_role("button", name="bytes read").get_attribute("aria-pressed") == "true"


def test_untrusted_text_is_shown_as_it_is(open_page, pages):
    page = open_page(pages / "nasty.html")
    assert "<img src=x onerror=alert(1)>" in page.locator("h1").inner_text()
    sample = page.locator(".samples pre").nth(2).inner_text()
    assert sample == "</pre><script>alert(2)</script>\ufffd\ufffd\ufffdשלום"
    assert "</script><script>alert(3)</script>" in page.locator("body").inner_text()


def test_goodput_and_profile_are_shown_where_a_run_has_them(open_page, pages):
    page = open_page(pages / "nasty.html")
    assert "75 %" in page.locator(".tile", has_text="goodput").inner_text()
    assert chart(page, "Goodput").locator("svg").count() == 1
    rows = page.locator("section", has_text="Where the time went").locator("tr").all_inner_texts()
    assert [row.split("\t") for row in rows[1:]] == [["<b>compile", "3.2"], ["save", "1.0"]]
    link = page.get_by_role("link", name="perfetto_trace").get_attribute("href")
    assert link.startswith("file:///") and link.endswith("/perfetto_trace.json.gz")
    bare = open_page(pages / "bare.html").locator("body").inner_text()
    assert "goodput" not in bare.lower() and "Profile" not in bare


def test_several_runs_are_compared(open_page, pages, trained, nasty):
    page = open_page(pages / "both.html")
    section = page.locator("table", has=page.get_by_role("columnheader", name="field"))
    rows = {
        row.split("\t")[0]: row.split("\t")[1:] for row in section.locator("tr").all_inner_texts()
    }
    assert rows.pop("model.hidden_size") == ["16", "17"]
    assert set(rows) == {"field", "data.corpus"}
    legend = chart(page, "Validation").locator("svg .role-legend-label text").all_text_contents()
    assert "".join(legend).count(nasty.name) == 1 and trained.name in "".join(legend)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", ["nasty", "both"])
def test_reports_fit_phones_and_desktops(open_page, pages, name, width, scheme):
    page = open_page(pages / f"{name}.html", width=width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert all(
        svg.bounding_box()["width"] > 0.6 * min(width, 400)
        for svg in page.locator("figure svg").all()
    )
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 150) == (scheme == "dark")


def test_a_report_prints(open_page, pages):
    page = open_page(pages / "one.html", color_scheme="dark")
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.get_by_role("button", name="seconds").is_hidden()


def test_a_run_is_watched_to_its_end(environment, text_file, tmp_path, charlstm):
    """The page is whole whenever it is read, and follows the run."""
    command = [sys.executable, "-m", "charlstm", "report", "--watch", "--every=1", tmp_path / "run"]
    watching = subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        arguments = [f"--corpus={text_file}", f"--workdir={tmp_path / 'run'}", *TINY]
        assert charlstm("train", *arguments, "--stop_after=20").returncode == 0
        page = tmp_path / "run" / "report.html"
        while not page.exists():
            assert watching.poll() is None
            time.sleep(0.01)  # whoever watches has the lowest priority
        first = page.read_text()
        assert first.endswith("</html>\n") and 'http-equiv="refresh"' in first
        assert charlstm("train", *arguments).returncode == 0
        while watching.poll() is None:
            assert page.read_text().endswith("</html>\n")
            time.sleep(0.01)
        assert watching.returncode == 0
        last = page.read_text()
        assert "update 40 of 40" in last and 'http-equiv="refresh"' not in last
        assert "waiting for the run to begin" in watching.stderr.read()
        assert {entry.name for entry in page.parent.glob("*report*")} == {"report.html"}
    finally:
        watching.kill()
        watching.wait()
        watching.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no run is named"),
        (("/nowhere",), "no run folder"),
        (("RUN/about.json",), "is a file and no run folder"),
        (("--watch", "RUN/about.json"), "is a file and no run folder"),
        (("RUN/samples",), "is no run folder"),
        (("RUN", "--output=/nowhere/page.html"), "no folder /nowhere"),
        (("RUN", "--output=RUN"), "cannot write"),
    ],
)
def test_bad_input_is_refused_with_one_line(charlstm, trained, arguments, says):
    done = charlstm("report", *(argument.replace("RUN", str(trained)) for argument in arguments))
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_text_whose_name_is_no_utf_8_is_trained_on_and_reported(charlstm, text_file, tmp_path):
    text = shutil.copy(text_file, tmp_path / os.fsdecode(b"caf\xe9.txt"))
    flags = f"--workdir={tmp_path / 'run'}", *TINY, "--stop_after=1"
    done = charlstm("train", f"--corpus={text}", *flags)
    assert done.returncode == 0, done.stderr
    done = charlstm("report", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9.txt, " in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
