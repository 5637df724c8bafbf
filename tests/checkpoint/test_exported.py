"""A model in one file: the same model as the checkpoint that it was exported from."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from exported_models import KINDS, header_of, make_model, with_fields, with_header
from run_folders import numbers

import charlstm
from charlstm import UserError, exporting
from charlstm.checkpoint import exported, reading
from charlstm.checkpoint.failures import DamagedCheckpoint
from charlstm.checkpoint.writing import Checkpoints
from charlstm.data.corpus import Alphabet

ONE_DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    """The trained run's model in one file."""
    path = tmp_path_factory.mktemp("exported") / "words.safetensors"
    exporting.export(str(trained), "safetensors", path)
    return path


def read(path):
    _, model, metadata = reading.read_best(charlstm.Model, path, ONE_DEVICE)
    return model, metadata


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_comes_back_to_the_last_bit(kind, tmp_path):
    model, metadata = make_model(kind)
    path = tmp_path / "model.safetensors"
    path.write_bytes(exported.encoded(model.params, metadata, np.float32))
    found, again = read(path)
    assert jax.tree.structure(found.params) == jax.tree.structure(model.params)
    assert numbers(found).tobytes() == numbers(model).tobytes()
    assert found.network.cell == model.network.cell
    assert found.network.connections == model.network.connections
    assert again.config == metadata.config and again.alphabet == metadata.alphabet


def test_it_generates_and_scores_as_the_run_does(trained, file):
    ours, theirs = charlstm.load(file), charlstm.load(trained)
    assert numbers(ours).tobytes() == numbers(theirs).tobytes()
    assert ours.generate("a word", 50, seed=1) == theirs.generate("a word", 50, seed=1)
    assert ours.bits_per_byte("some words") == theirs.bits_per_byte("some words")


def test_it_tells_what_the_checkpoint_tells_and_no_place_on_this_machine(trained, file):
    step = reading.resolve(trained)
    was, now = reading.read_metadata(step), reading.metadata_of(file)
    for name in ("config", "alphabet", "metrics", "versions"):
        assert getattr(now, name) == getattr(was, name)
    assert "source" in was.corpus and "source" not in now.corpus
    assert was.corpus == now.corpus | {"source": was.corpus["source"]}
    assert reading.updates_of(file, now) == int(step.name) > 0
    assert now.clock["seconds"] == was.clock["seconds"]


def test_its_tensors_are_those_of_nn_lstm(tmp_path):
    model, metadata = make_model("embedding")
    path = tmp_path / "model.safetensors"
    path.write_bytes(exported.encoded(model.params, metadata, np.float32))
    tensors = safetensors.numpy.load_file(path)
    hidden, symbols = 8, len(model.alphabet.symbols)
    assert {name: array.shape for name, array in tensors.items()} == {
        "embedding.weight": (symbols, 5),
        "lstm.weight_ih_l0": (4 * hidden, 5),
        "lstm.weight_hh_l0": (4 * hidden, hidden),
        "lstm.bias_ih_l0": (4 * hidden,),
        "lstm.bias_hh_l0": (4 * hidden,),
        "lstm.weight_ih_l1": (4 * hidden, hidden),
        "lstm.weight_hh_l1": (4 * hidden, hidden),
        "lstm.bias_ih_l1": (4 * hidden,),
        "lstm.bias_hh_l1": (4 * hidden,),
        "head.weight": (symbols, hidden),
        "head.bias": (symbols,),
    }
    upper = model.params["layers"]["1"]
    assert (upper["weight_ih"] == tensors["lstm.weight_ih_l1"].T).all()
    assert not tensors["lstm.bias_hh_l1"].any()


def test_bfloat16_takes_half_the_space_and_is_read_as_float32(tmp_path):
    model, metadata = make_model("all", hidden_size=64)
    path = tmp_path / "model.safetensors"
    wide = exported.encoded(model.params, metadata, np.float32)
    path.write_bytes(exported.encoded(model.params, metadata, jnp.bfloat16))
    assert path.stat().st_size < 0.52 * len(wide)
    rounded = jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(jnp.float32), model.params)
    found, _ = read(path)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found.params))
    assert numbers(found).tobytes() == numbers(model.replace(params=rounded)).tobytes()


def test_the_average_is_exported_where_there_is_one(tmp_path):
    model, metadata = make_model()
    config = metadata.config.replace({"optimizer.averaging": "ema"})
    averaged = jax.tree.map(lambda leaf: leaf + 1, model.params)
    checkpoints = Checkpoints(tmp_path / "run", keep_last=1, keep_every=0)
    items = {"params": model.params, "average": {"params": averaged}}
    checkpoints.save(3, items, type(metadata)(**(vars(metadata) | {"config": config})))
    checkpoints.close()
    exporting.export(str(tmp_path / "run"), "safetensors", tmp_path / "model.safetensors")
    found, _ = read(tmp_path / "model.safetensors")
    assert numbers(found).tobytes() == numbers(model.replace(params=averaged)).tobytes()


def test_an_exported_file_is_exported_again(file, tmp_path):
    exporting.export(str(file), "safetensors", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_a_state_that_is_to_be_reset_is_said(tmp_path):
    model, metadata = make_model()
    fields = {"data.carry_state": False, "data.window_length": 12}
    path = tmp_path / "model.safetensors"
    content = exported.encoded(model.params, with_fields(metadata, fields), np.float32)
    path.write_bytes(content)
    assert header_of(path)["reset_every"] == "12" and charlstm.load(path).reset_every == 12
    lines = exporting.export(str(path), "safetensors", tmp_path / "again.safetensors")
    assert any("set the state to zero every 12 bytes" in line for line in lines)


class TestDamage:
    """Whatever a file is, there is one line that says what is wrong with it."""

    @pytest.fixture
    def refusal(self, tmp_path):
        def load(content):
            path = tmp_path / "model.safetensors"
            path.write_bytes(content)
            with pytest.raises(UserError) as caught:
                charlstm.load(path)
            message = str(caught.value)
            assert str(path) in message and "\n" not in message
            return message

        return load

    def test_every_flipped_bit_is_noticed(self, file, refusal):
        content = file.read_bytes()
        rng = np.random.default_rng(0)
        start = 8 + int.from_bytes(content[:8], "little")
        for place in rng.integers(start, len(content), 20):
            flipped = bytearray(content)
            flipped[place] ^= 1 << rng.integers(8)
            assert "its tensors are not as they were written" in refusal(bytes(flipped))

    def test_a_file_that_is_cut_off_anywhere(self, file, refusal):
        content = file.read_bytes()
        for length in (0, 5, 9, 200, len(content) // 2, len(content) - 1):
            said = refusal(content[:length])
            assert "it is cut off" in said or "no safetensors file" in said
            assert "fetch it again" in said

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"To be, or not to be, that is the question", "its header would have"),
            ((2**40).to_bytes(8, "little") + b"{" * 100, "its header would have"),
            ((100).to_bytes(8, "little") + b"[" * 100, "its header is no JSON"),
            ((10**5).to_bytes(8, "little") + b"[" * 10**5, "recursion"),
            ((4).to_bytes(8, "little") + b"null" + b" " * 9, "its header is no JSON object"),
            (safetensors.numpy.save({"a": np.zeros(3)}), "charlstm import"),
            (safetensors.numpy.save({}, {"config": "{}", "alphabet": "{}"}), "kind"),
            (safetensors.numpy.save({}, {"config": "[", "alphabet": "[" * 9}), "Expecting value"),
        ],
        ids=[
            "prose",
            "huge header",
            "broken header",
            "deep header",
            "null header",
            "no texts",
            "no configuration",
            "broken configuration",
        ],
    )
    def test_foreign_files(self, content, says, refusal):
        assert says in refusal(content)

    @pytest.mark.parametrize(
        ("texts", "says"),
        [
            ({"format_version": "2"}, "reads formats up to 1: update it"),
            ({"config": json.dumps({"model": {"hidden_size": 9}})}, "its configuration says [36,"),
            ({"config": json.dumps({"model": {"num_layers": 65}})}, "64 or less"),
            (
                {"config": json.dumps({"model": {"num_layers": 3, "hidden_size": 8}})},
                "no tensor lstm.weight_ih_l2",
            ),
            ({"config": json.dumps({"of": {"tomorrow": 1}})}, "no configuration field"),
            ({"alphabet": json.dumps({"kind": "corpus", "symbols": [9, 8]})}, "ascending order"),
            ({"corpus": "7"}, "corpus"),
            ({"training": '{"updates": "many"}'}, "no valid number of updates"),
            ({"metrics": '{"valid_bits_per_byte": "NaN"}'}, "metrics"),
        ],
    )
    def test_texts_of_the_header_that_are_wrong(self, texts, says, tmp_path, refusal):
        model, metadata = make_model(num_layers=2)
        content = exported.encoded(model.params, metadata, np.float32)

        def change(header):
            header["__metadata__"] |= texts
            header["__metadata__"].pop("digest")
            return header

        assert says in refusal(with_header(content, change))

    def test_tensors_that_are_no_parameters(self, refusal):
        model, metadata = make_model(num_layers=1)
        texts = exported.texts_of(metadata)
        tensors = exported.named_tensors.to_tensors(jax.device_get(model.params))
        whole = {"head.bias": np.zeros(12, np.int64)}
        assert "head.bias is of int64, which is no parameter" in refusal(
            safetensors.numpy.save(tensors | whole, texts)
        )
        more = {"head.scale": np.zeros(12, np.float32)}
        assert "head.scale is no tensor of" in refusal(
            safetensors.numpy.save(tensors | more, texts)
        )

    def test_a_tool_that_drops_the_digest_may_change_the_numbers(self, tmp_path):
        model, metadata = make_model(num_layers=1)
        path = tmp_path / "model.safetensors"
        tensors = exported.named_tensors.to_tensors(jax.device_get(model.params))
        tensors["head.bias"] = tensors["head.bias"].astype(np.float64) + 1
        safetensors.numpy.save_file(tensors, path, exported.texts_of(metadata))
        found, _ = read(path)
        bias = np.float32(np.asarray(model.params["head"]["bias"], np.float64) + 1)
        assert (found.params["head"]["bias"] == bias).all()

    def test_a_folder_of_that_name_is_a_checkpoint_as_ever(self, trained, tmp_path):
        shutil.copytree(trained, tmp_path / "run.safetensors")
        loaded = charlstm.load(tmp_path / "run.safetensors")
        assert (numbers(loaded) == numbers(charlstm.load(trained))).all()


def test_metadata_that_name_no_number_of_updates_are_those_of_an_unknown_age(tmp_path):
    model, metadata = make_model()
    path = tmp_path / "model.safetensors"
    tensors = exported.named_tensors.to_tensors(jax.device_get(model.params))
    texts = exported.texts_of(metadata)
    needed = {name: texts[name] for name in ("config", "alphabet")}
    safetensors.numpy.save_file(tensors, path, needed)
    found, again = read(path)
    assert numbers(found).tobytes() == numbers(model).tobytes()
    assert reading.updates_of(path, again) == 0 and again.corpus["sha256"] == ""
    assert Alphabet.from_json(json.loads(header_of(path)["alphabet"])) == model.alphabet


def test_a_file_that_goes_away_meanwhile_is_a_missing_checkpoint(file, tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        charlstm.load(tmp_path / "none.safetensors")
    with pytest.raises(DamagedCheckpoint, match="No such file"):
        exported.read_metadata(tmp_path / "none.safetensors")


def test_the_address_of_a_text_in_a_file_is_not_followed(tmp_path):
    """Whoever made the file wrote it there."""
    model, metadata = make_model()
    elsewhere = with_fields(metadata, {"data.corpus": "http://127.0.0.1:9/text"})
    path = tmp_path / "model.safetensors"
    path.write_bytes(exported.encoded(model.params, elsewhere, np.float32))
    assert exported.read_metadata(path).config.data.corpus == ""


@pytest.mark.parametrize("suffix", ["onnx", "stablehlo", "html"])
def test_files_for_other_programs_are_told_from_damaged_ones(suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(b"of another format")
    with pytest.raises(UserError, match="is for other programs; charlstm reads what"):
        charlstm.load(path)
