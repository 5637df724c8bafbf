"""PyTorch's step loop, drawing bytes: nn.LSTM on one time step, softmax, multinomial."""

from typing import Any

import torch

from benchmarks import workloads
from benchmarks.contestants import Contestant, num_cores, versions_of
from benchmarks.contestants.torch_training import Model


def prepare(spec: dict[str, Any]) -> Contestant:
    """A turn draws `count` bytes in each of B texts; nothing is read back before its end.

    Args:
      spec: `shape`, whose window_length is not used, `dtype` and `threads` (0: all cores).
    """
    shape = workloads.Shape(**spec["shape"])
    torch.set_num_threads(spec.get("threads") or num_cores())
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, spec["dtype"])
    model = Model(shape, "one-hot").to(device, dtype).eval()
    sizes = shape.num_layers, shape.num_streams, shape.hidden_size

    @torch.inference_mode()
    def turn(count: int) -> dict[str, float]:
        carry = (
            torch.zeros(sizes, device=device, dtype=dtype),
            torch.zeros(sizes, device=device, dtype=dtype),
        )
        symbols = torch.full((1, shape.num_streams), 10, device=device)
        drawn = []
        for _ in range(count):
            logits, carry = model(symbols, carry)
            probabilities = torch.softmax(logits[0].float() / workloads.TEMPERATURE, dim=-1)
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
    return Contestant(turn, info)
