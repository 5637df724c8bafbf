"""From PyTorch's nn.LSTM to a run that goes on; skipped where PyTorch is not installed."""

import numpy as np
import pytest
from run_folders import curve, numbers

import charlstm
from charlstm import importing
from charlstm.importing import run

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("own_cache")


class Network(torch.nn.Module):
    """As many write it: an embedding, an LSTM, and a linear layer."""

    def __init__(self, symbols, embedding, hidden, layers):
        super().__init__()
        self.embedding = torch.nn.Embedding(symbols, embedding)
        self.lstm = torch.nn.LSTM(embedding, hidden, layers)
        self.fc = torch.nn.Linear(hidden, symbols)

    def forward(self, symbols):
        outputs, _ = self.lstm(self.embedding(symbols))
        return self.fc(outputs)


def test_a_network_of_pytorch_is_imported_and_trained_on(text_file, tmp_path):
    """Its logits are the same to 1e-5, and 20 updates make it better."""
    from safetensors.torch import save_file

    text = text_file.read_bytes()
    alphabet = sorted(set(text))
    torch.manual_seed(0)
    network = Network(len(alphabet), 12, 24, 2)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    read = importing.read(
        str(tmp_path / "model.safetensors"),
        str(text_file),
        {
            "model.compute_dtype": "float32",
            "data.num_streams": 8,
            "data.window_length": 16,
            "optimizer.warmup_updates": 5,
            "optimizer.learning_rate": 0.02,
            "training.num_updates": 20,
            "training.log_every": 1,
            "training.sample_every": 0,
        },
    )
    folder = run.write(read, str(tmp_path / "run"))
    model = charlstm.load(folder)
    symbols = torch.tensor([alphabet.index(byte) for byte in text[:300]])
    with torch.no_grad():
        wanted = network(symbols[:, None])[:, 0].numpy()
    np.testing.assert_allclose(model.logits(text[:300]), wanted, rtol=0, atol=1e-5)
    config = charlstm.load_config(str(folder / "config.json"))
    trained = charlstm.train(config, folder)
    losses = curve(folder)
    nats = torch.nn.functional.cross_entropy(network(symbols[:-1]), symbols[1:]).item()
    assert abs(losses[0] - nats / np.log(2)) < 0.1 and losses[-1] < losses[0] - 0.3
    assert (numbers(trained) != numbers(model)).any()
