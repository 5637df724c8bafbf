"""A page with a model in it, in a real browser, from a file, without a network."""

import dataclasses
import math
import os
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import wait_until
from exported_models import make_model, with_fields
from play_pages import strengths, text_of, write

import charlstm as api
from charlstm import UserError
from charlstm.exporting import onnxruntime_web, web
from charlstm.pages import html
from charlstm.sampling import texts
from charlstm.sampling.decode import Decoder
from charlstm.sampling.settings import Settings

NASTY = "<script>window.ran = 1</script></script><!--"


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The file of onnxruntime-web: of this user's cache folder, or as npm fetches it."""
    if not onnxruntime_web.cached_package().is_file():
        missing = pytest.fail if os.environ.get("CHARLSTM_TESTS_NEED_NPM") else pytest.skip
        if shutil.which("npm") is None:
            missing("no npm: apt-get install -y npm")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("npm")))
            try:
                onnxruntime_web.load()
            except UserError as error:
                missing(str(error))
            return onnxruntime_web.cached_package()
    return onnxruntime_web.cached_package()


@pytest.fixture(scope="module")
def exported(charlstm, trained, package, tmp_path_factory):
    """The page of the trained run."""
    folder = tmp_path_factory.mktemp("web") / "page"
    done = charlstm(
        "export", trained, "--format=web", f"--output={folder}", f"--onnxruntime_web={package}"
    )
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert f"open {folder / 'index.html'} in a browser" in done.stderr
    assert os.listdir(folder) == ["index.html"]
    return folder / "index.html"


@pytest.fixture
def opened(open_page, exported):
    return open_page(exported, offline=True)


@pytest.fixture
def open_model(open_page, package, tmp_path):
    """Opens the page of a model that is made in the test."""

    def opened(model, metadata, name="model"):
        html.write(tmp_path / "page.html", web.render(model, metadata, name, package))
        return open_page(tmp_path / "page.html", offline=True)

    return opened


def greedy(model, prompt, length):
    """The likeliest text of a model, by charlstm's own decoder."""
    symbols = Decoder(1, Settings(temperature=0))(
        texts.load(model), model.alphabet.encode(prompt), length, 0
    )
    return b"".join(model.alphabet.decode(piece[0]) for piece in symbols).decode()


def surprises(model, text):
    """The opacity that the surprise of each byte has, by charlstm's own logits."""
    symbols = model.alphabet.encode(text)
    logits, _ = model.apply(model.zero_carry(1), jnp.asarray(symbols[:, None]))
    logits = np.asarray(logits[:-1, 0], np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    bits = -logprobs[np.arange(len(logits)), symbols[1:]] / math.log(2)
    return [0, *(0.6 * np.minimum(1, bits / 8))]


@pytest.mark.network
def test_the_greedy_text_is_the_models_own(opened, trained):
    model = api.load(trained)
    write(opened, "ab", temperature=0, length=120)
    wanted = model.generate("ab", 120, temperature=0).decode()
    assert text_of(opened) == "ab" + wanted
    write(opened, "ab", temperature=1.5, **{"top-p": 0.01}, length=120)
    assert text_of(opened) == "ab" + wanted  # of so little the likeliest alone is drawn


@pytest.mark.network
def test_surprise_and_cells_are_the_models_own(opened, trained):
    model = api.load(trained)
    write(opened, "some words", length=60, seed=5)
    text = text_of(opened).encode()
    assert len(text) == 70
    assert strengths(opened) == pytest.approx(surprises(model, text), abs=0.006)
    # The states, by reading the text again from its start up to a byte.
    for place in (0, 9, 10, 69):
        symbols = model.alphabet.encode(text[: place + 1])
        _, carry = model.apply(model.zero_carry(1), jnp.asarray(symbols[:, None]))
        opened.locator(".byte").nth(place).hover()
        names = opened.locator(".lamp .label").all_inner_texts()
        values = opened.locator(".lamp .value").all_inner_texts()
        assert len(names) == 12 and names[0] == "0:1" and names[-1] == "1:14"
        for name, value in zip(names, values, strict=True):
            layer, cell = map(int, name.split(":"))
            wanted = math.tanh(float(carry["c"][layer, 0, cell]))
            assert float(value.replace("−", "-")) == pytest.approx(wanted, abs=0.0051)
    opened.locator("#cell").fill("1:15")  # one that was not there while the text was written
    opened.locator("#cell").press("Enter")
    wait_until(opened, "!document.querySelector('.unknown')")
    opened.locator(".byte").last.hover()
    value = opened.locator(".lamp .value").last.inner_text()
    wanted = math.tanh(float(carry["c"][1, 0, 15]))
    assert float(value.replace("−", "-")) == pytest.approx(wanted, abs=0.0051)


@pytest.mark.network
def test_a_seed_gives_its_text_again(opened):
    texts = []
    for seed in (1, 1, 2):
        write(opened, "a", length=80, seed=seed)
        texts.append(text_of(opened))
    assert texts[0] == texts[1] != texts[2]
    opened.get_by_role("button", name="Go on").click()
    wait_until(opened, "document.querySelectorAll('.byte').length === 161")
    assert text_of(opened).startswith(texts[2])


@pytest.mark.network
def test_stopped_and_gone_on_with(opened, trained):
    opened.locator("#prompt").fill("a")
    opened.locator("#temperature").fill("0")
    opened.locator("#length").fill("100000")
    opened.get_by_role("button", name="Write").click()
    wait_until(opened, "document.querySelectorAll('.byte').length > 30")
    opened.keyboard.press("Escape")
    opened.locator("#go-on:enabled").wait_for()
    assert opened.locator("#status").inner_text().startswith("Stopped.")
    stopped = text_of(opened)
    assert len(stopped) < 100_000
    opened.locator("#length").fill("20")
    opened.get_by_role("button", name="Go on").click()
    wait_until(opened, f"document.querySelectorAll('.byte').length === {len(stopped) + 20}")
    opened.locator("#go-on:enabled").wait_for()
    text = text_of(opened)
    assert text == "a" + api.load(trained).generate("a", len(text) - 1, temperature=0).decode()


@pytest.mark.network
def test_the_page_says_what_it_holds_and_asks_nobody(opened, exported, trained, text_file):
    model = api.load(trained)
    assert opened.locator("h1").inner_text() == "run"  # the name of the folder
    header = opened.locator("header").inner_text()
    assert "2 layers of 16 cells" in header and f"{model.num_parameters:,} parameters" in header
    assert re.search(r"\d\.\d{3} bits per byte on validation", header)
    assert f"trained on {text_file.stem}" in header and "12.0 kB, with 40 updates" in header
    footer = opened.locator("footer")
    assert "charlstm export run --format=web" in footer.inner_text()
    footer.locator("summary").click()
    licence = footer.locator("pre").inner_text()
    assert "Copyright (c) Microsoft Corporation" in licence and "ThirdPartyNotices" in licence
    policy = opened.evaluate("document.querySelector('meta[http-equiv]').content")
    assert "'wasm-unsafe-eval'" in policy and "connect-src" not in policy
    assert "default-src 'none'" in policy and "'unsafe-eval'" not in policy
    opened.locator("#prompt").fill("aé")
    opened.keyboard.press("Control+Enter")
    assert "does not know 0xC3 0xA9 é" in opened.locator("#notice").inner_text()


@pytest.mark.network
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_phones_and_desktops(open_page, exported, width):
    page = open_page(exported, width=width, height=800, color_scheme="dark")
    write(page, "a", length=200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.network
def test_markup_is_shown_and_not_run(open_model):
    model, metadata = make_model("plain", symbols=bytes(range(256)))
    metadata = dataclasses.replace(metadata, corpus=metadata.corpus | {"name": NASTY})
    page = open_model(model, metadata, NASTY)
    assert page.locator("h1").inner_text() == NASTY
    assert f"trained on {NASTY}" in page.locator("header").inner_text()
    write(page, NASTY + "\x00é", length=10)
    assert text_of(page).startswith(NASTY + "00é")
    assert page.evaluate("window.ran") is None


@pytest.mark.network
@pytest.mark.parametrize("kind", ["all", "skip"])
def test_models_of_other_kinds(open_model, kind):
    model, metadata = make_model(kind)
    page = open_model(model, metadata)
    write(page, "abc def", temperature=0, length=50)
    assert text_of(page) == "abc def" + greedy(model, b"abc def", 50)


@pytest.mark.network
def test_the_state_is_reset_as_in_training(open_model):
    model, metadata = make_model("plain")
    fields = {"data.carry_state": False, "data.window_length": 7}
    metadata = with_fields(metadata, fields)
    model = model.replace(reset_every=metadata.config.data.reset_every)
    assert model.reset_every == 7
    page = open_model(model, metadata)
    write(page, "abc def abc", temperature=0, length=50)
    assert text_of(page) == "abc def abc" + greedy(model, b"abc def abc", 50)


@pytest.mark.network
def test_a_long_prompt_is_read_in_windows(open_model):
    model, metadata = make_model("plain")
    page = open_model(model, metadata)
    rng = np.random.default_rng(0)
    prompt = rng.choice(np.frombuffer(b"\nabc defg", np.uint8), 1500).tobytes()
    write(page, prompt.decode(), temperature=0, length=10)
    text = text_of(page).encode()
    assert text == prompt + greedy(model, prompt, 10).encode()
    assert strengths(page) == pytest.approx(surprises(model, text), abs=0.006)
    page.locator("[data-colour=cell]").click()
    unknown = "document.querySelectorAll('.byte.unknown').length"
    assert page.evaluate(unknown) == 1500 - 1024  # the states within windows are not known


def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        onnxruntime_web.load(tmp_path / "none.tgz")
    (tmp_path / "other.tgz").write_bytes(b"another")
    with pytest.raises(UserError, match=r"is not onnxruntime-web 1\.30\.0 as npm has it"):
        onnxruntime_web.load(tmp_path / "other.tgz")


def test_without_npm_or_a_network_one_line_names_the_cure(tmp_path, monkeypatch):
    """A damaged file in the cache folder counts for nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = onnxruntime_web.cached_package()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut off")
    if shutil.which("npm"):
        monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        with pytest.raises(UserError, match=r"npm cannot fetch .*--onnxruntime_web=FILE"):
            onnxruntime_web.load()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"install Node\.js, or .*--onnxruntime_web=FILE"):
        onnxruntime_web.load()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--output=FILE", "--format=web"), "is a file: --format=web writes a folder"),
        (("--output=/nowhere/page", "--format=web"), "there is no folder /nowhere"),
        (("--output=page", "--format=web", "--dtype=bfloat16"), "in float32, not bfloat16"),
        (("--output=page", "--format=web", "--onnxruntime_web=x.tgz"), "x.tgz: No such file"),
        (("--output=m.onnx", "--onnxruntime_web=x.tgz"), "goes with --format=web"),
    ],
)
def test_bad_input_is_refused_with_one_line(charlstm, trained, arguments, says, tmp_path):
    (tmp_path / "file").write_text("mine")
    given = [argument.replace("FILE", str(tmp_path / "file")) for argument in arguments]
    done = charlstm("export", trained, *given, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"
    assert says in done.stderr and len(done.stderr.splitlines()) == 1
