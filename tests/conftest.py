"""What several tests share: a text, the command line as a real process, and a real browser."""

import os
import shutil
import subprocess
import sys

import numpy as np
import processes
import pytest

# A configuration that trains in a second.
TINY = (
    "--config.model.num_layers=2",
    "--config.model.hidden_size=16",
    "--config.model.dropout=0.2",
    "--config.data.num_streams=4",
    "--config.data.window_length=8",
    "--config.training.num_updates=40",
    "--config.training.log_every=5",
    "--config.training.evaluate_every=20",
    "--config.training.sample_every=0",
    "--config.training.checkpoint_every=10",
    "--config.optimizer.warmup_updates=5",
)

# The test files that take longest, in the order in which they are begun.
LONGEST = (
    "test_runs_in_buckets.py",
    "test_benchmarks.py",
    "test_gpu.py",
    "test_slurm.py",
    "test_elastic.py",
    "test_distributed.py",
    "test_train.py",
    "test_process.py",
    "test_completions.py",
    "test_averaging.py",
    "test_hooks.py",
    "test_decode.py",
    "test_clients.py",
    "test_engine.py",
    "test_api.py",
    "test_diagnosed_runs.py",
    "test_scan.py",
    "test_sample.py",
    "test_inspect.py",
    "test_web.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Workers take whole files, for the sake of what their tests share, the longest first."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_configure(config):
    """JAX warns of what a killed process left half written, and compiles it anew."""
    broken = "ignore:Error reading persistent compilation cache entry"
    config.addinivalue_line("filterwarnings", broken)


def pytest_collection_modifyitems(items):
    """Puts the files that take longest first, so that no worker ends long before another."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True, scope="session")
def compiled(tmp_path_factory):
    """The folder of what is compiled, for the session, by pytest-xdist's workers and by processes.

    Most tests compile the same few programs.
    """
    import jax

    session = tmp_path_factory.getbasetemp()
    folder = (session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return folder


@pytest.fixture(scope="session")
def environment(compiled, tmp_path_factory):
    """The environment of the processes: a cache folder of its own."""
    return os.environ | {
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }


@pytest.fixture(scope="module")
def own_cache(environment):
    """Lets the tests' own process use the cache folder of the processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
        yield


@pytest.fixture(scope="module")
def small_config(own_cache, text_file):
    """A configuration that `charlstm.train` trains in a second, in the tests' own process."""
    import charlstm

    return charlstm.Config().replace(
        {
            "model.hidden_size": 8,
            "model.alphabet": "corpus",
            "data.corpus": str(text_file),
            "data.num_streams": 4,
            "data.window_length": 8,
            "optimizer.warmup_updates": 2,
            "training.sample_every": 0,
            "training.checkpoint_every": 0,
            "training.checkpoint_seconds": 0.0,
        }
    )


@pytest.fixture(scope="session")
def charlstm(environment):
    """Runs `python -m charlstm …`, perhaps behind a prefix; returns the finished process."""

    def run(*arguments, prefix=(), **options):
        command = [*prefix, sys.executable, "-m", "charlstm", *map(str, arguments)]
        options = {"env": environment, "timeout": 300, "text": True} | options
        return subprocess.run(command, capture_output=True, check=False, **options)

    return run


@pytest.fixture(scope="session")
def free_port():
    """Finds a port that nobody listens on."""
    return processes.free_port


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    """12 kB of words with some order in them, 27 distinct bytes and a line break."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 5)) for _ in range(40)]
    lines = [" ".join(rng.choice(words, 8)) for _ in range(250)]
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session")
def trained(charlstm, text_file, tmp_path_factory):
    """A run folder with a finished tiny run over the text's own alphabet. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = charlstm(
        "train",
        f"--corpus={text_file}",
        f"--workdir={folder}",
        "--config.model.alphabet=corpus",
        *TINY,
        "--config.training.sample_every=20",
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium, the system's own."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        needed = "no Chromium: apt-get install -y chromium"
        if os.environ.get("CHARLSTM_TESTS_NEED_CHROMIUM"):
            pytest.fail(needed)
        pytest.skip(needed)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def wait_until(page, expression):
    """Returns when an expression is true; unlike `wait_for_function`, without the page's `eval`."""
    for _ in range(2400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"still not so: {expression}")


@pytest.fixture
def open_page(chromium):
    """Opens a page as a person would, and keeps what must not be: messages, dialogs, requests.

    A file may request nothing. A page with an address may request what is below the address.
    """
    contexts = []

    def opened(page_at, *, width=1280, height=900, **options):
        address = page_at if isinstance(page_at, str) else page_at.as_uri()
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(120_000)  # for machines that do much else
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: page.complaints.append(dialog.message) or dialog.dismiss())
        page.on(
            "request",
            lambda request: (
                request.url == address
                or (isinstance(page_at, str) and request.url.startswith(address))
                or page.complaints.append(request.url)
            ),
        )
        page.goto(address)
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            assert page.complaints == []
        context.close()
