"""What the tests of the server share: engines that make texts."""

import pytest
from serving_models import MODELS

from charlstm.serving.engine import Engine


@pytest.fixture(scope="module")
def new_engine():
    """Starts engines, and ends them when the module's tests are done."""
    started = []

    def new(model, max_batch=8, cache_bytes=2**24):
        engine = Engine(model, max_batch=max_batch, cache_bytes=cache_bytes)
        engine.start()
        started.append(engine)
        while not engine.is_ready:
            assert not engine.has_failed
            engine._thread.join(0.05)
        return engine

    with pytest.MonkeyPatch.context() as patch:
        # What is compiled before somebody needs it is no matter here, and takes long.
        patch.setattr(Engine, "_compile_others", lambda self: None)
        yield new
        for engine in started:
            engine.stop()
        for engine in started:
            engine.join()


@pytest.fixture(scope="module")
def engines(new_engine):
    """An engine for each of the models, by their names."""
    made = {}

    def find(name):
        if name not in made:
            made[name] = new_engine(MODELS[name]())
        return made[name]

    return find
