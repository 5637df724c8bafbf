"""Draws bytes with PyTorch's step loop: nn.LSTM on one time step, softmax, multinomial."""

from typing import Any

import torch

from benchmarks.competitors import Competitor, num_cores, versions_of
from benchmarks.competitors.torch_training import Model
from charlstm.benchmark import shapes


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares sampling; a run draws `count` bytes in each of B texts.

    Nothing is read back to the host before the end of a run.

    Args:
      spec: `shape`, whose window_length is not used, `dtype` and `threads` (0: all cores).
    """
    shape = shapes.Shape(**spec["shape"])
    torch.set_num_threads(spec.get("threads") or num_cores())
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, spec["dtype"])
    model = Model(shape, "one-hot").to(device, dtype).eval()
    sizes = shape.num_layers, shape.num_streams, shape.hidden_size

    @torch.inference_mode()
    def run(count: int) -> dict[str, float]:
        carry = (
            torch.zeros(sizes, device=device, dtype=dtype),
            torch.zeros(sizes, device=device, dtype=dtype),
        )
        symbols = torch.full((1, shape.num_streams), 10, device=device)
        drawn = []
        for _ in range(count):
            logits, carry = model(symbols, carry)
            probabilities = torch.softmax(logits[0].float() / shapes.TEMPERATURE, dim=-1)
            symbols = torch.multinomial(probabilities, 1).T
            drawn.append(symbols)
        torch.cat(drawn).cpu()
        return {}

    info = {
        "versions": versions_of("torch", "numpy"),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "dtype": spec["dtype"],
        "threads": torch.get_num_threads(),
    }
    return Competitor(run, info)
