"""Compiled programs are kept where only the user may write, and flags are set when asked for."""

import os
import subprocess
import sys

import jax
import pytest

from charlstm.runtime import xla


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.jax_compilation_cache_dir
    yield tmp_path / "charlstm" / "compiled"
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_folder_is_made_for_the_user_alone(cache):
    xla.keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == str(cache)
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_not_trusted(cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    before = jax.config.jax_compilation_cache_dir
    xla.keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == before


def test_a_second_run_finds_what_the_first_compiled(tmp_path):
    script = """
import jax
from charlstm.runtime import xla
xla.keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda i, x: jax.numpy.sin(x @ x), x))(
    jax.numpy.ones((64, 64))
)
print("/jax/compilation_cache/cache_hits" in found)
"""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    said = [
        subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        for _ in range(2)
    ]
    assert [one.stdout.strip() for one in said] == ["False", "True"]
    assert said[1].stderr == ""


@pytest.mark.parametrize(("choice", "wanted"), [("on", True), ("off", False), ("auto", False)])
def test_command_buffers_are_switched_on_only_when_asked_for(monkeypatch, choice, wanted):
    """Auto leaves them off until a measurement shows a gain."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    xla.set_command_buffers(choice)
    flags = xla.flags_in_force().split()
    assert flags[0] == "--xla_backend_optimization_level=0"
    assert set(xla.COMMAND_BUFFERS).issubset(flags) == wanted
