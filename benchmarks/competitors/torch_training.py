"""Trains PyTorch's nn.LSTM, with its own threads on a CPU and with cuDNN on a GPU."""

from typing import Any

import torch
from torch import nn

from benchmarks import workloads
from benchmarks.competitors import Competitor, num_cores, versions_of
from charlstm.benchmark import shapes

# How products are computed: the parameters' dtype, autocast's dtype (None: off), and TF32. With
# half-precision parameters the optimizer's state is in half precision too: less exact than ours,
# and the fastest that PyTorch can do. float16 runs without loss scaling, which makes it faster.
PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None, bool]] = {
    "float32": (torch.float32, None, False),
    "tf32": (torch.float32, None, True),
    "bfloat16": (torch.float32, torch.bfloat16, False),
    "float16": (torch.float32, torch.float16, False),
    "bfloat16-parameters": (torch.bfloat16, None, False),
    "float16-parameters": (torch.float16, None, False),
}


class Model(nn.Module):
    """Defines the same network: one-hot or embedded bytes, the stack, and a linear head."""

    def __init__(self, shape: shapes.Shape, inputs: str):
        super().__init__()
        hidden, symbols = shape.hidden_size, shape.num_symbols
        if inputs == "one-hot":
            # A look-up in the identity is cheaper than scattering ones into a zero tensor.
            self.register_buffer("table", torch.eye(symbols))
            size = symbols
        else:
            self.table = nn.Parameter(torch.randn(symbols, hidden))
            size = hidden
        self.lstm = nn.LSTM(size, hidden, shape.num_layers)
        self.head = nn.Linear(hidden, symbols)

    def forward(
        self, symbols: torch.Tensor, carry: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Returns logits [T, B, V] and the carry after symbols [T, B]."""
        inputs = nn.functional.embedding(symbols, self.table)
        outputs, carry = self.lstm(inputs, carry)
        return self.head(outputs), carry


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares training; a run makes `count` updates.

    Args:
      spec: `shape`, `inputs` (one-hot, embedding), `precision` (a key of `PRECISIONS`), and
        optionally `graph` (True: the whole update as one CUDA graph).
    """
    shape = shapes.Shape(**spec["shape"])
    parameter_dtype, autocast, tf32 = PRECISIONS[spec["precision"]]
    torch.set_num_threads(num_cores())
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _allow_tf32(tf32)

    model = Model(shape, spec["inputs"]).to(device, parameter_dtype)
    graphed = bool(spec.get("graph"))
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=shapes.LEARNING_RATE,
        betas=(shapes.BETA_1, shapes.BETA_2),
        eps=shapes.EPSILON,
        fused=True,
        capturable=graphed,
    )
    text = torch.from_numpy(workloads.symbols_of(shape)).to(device, torch.long)
    first = torch.arange(shape.num_streams, device=device) * (len(text) // shape.num_streams)
    places = first + torch.arange(shape.window_length + 1, device=device)[:, None]
    offset = torch.zeros((), dtype=torch.long, device=device)
    sizes = shape.num_layers, shape.num_streams, shape.hidden_size
    h = torch.zeros(sizes, device=device, dtype=parameter_dtype)
    c = torch.zeros_like(h)
    loss = torch.zeros((), device=device)

    def update() -> None:
        """Makes one update and changes everything in place, as a CUDA graph needs it."""
        window = text[(places + offset) % len(text)]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, autocast, enabled=autocast is not None):
            logits, (h_last, c_last) = model(window[:-1], (h, c))
        nats = nn.functional.cross_entropy(
            logits.reshape(-1, shape.num_symbols).float(), window[1:].reshape(-1)
        )
        nats.backward()
        nn.utils.clip_grad_norm_(model.parameters(), shapes.CLIP_NORM, foreach=True)
        optimizer.step()
        with torch.no_grad():
            h.copy_(h_last)
            c.copy_(c_last)
            offset.add_(shape.window_length)
            loss.copy_(nats)

    make_update = _captured(update) if graphed else update

    def run(count: int) -> dict[str, float]:
        _allow_tf32(tf32)  # others in this process may have another precision
        for _ in range(count):
            make_update()
        figures = {"nats": loss.item()}  # waits for all updates
        if device == "cuda":
            torch.cuda.synchronize()
            figures["device_peak_bytes"] = torch.cuda.max_memory_allocated()
        return figures

    info: dict[str, Any] = {"versions": versions_of("torch", "numpy"), "threads": num_cores()}
    info["device"] = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    if device == "cuda":
        info["cudnn"] = torch.backends.cudnn.version()
    return Competitor(run, info)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _captured(update: Any) -> Any:
    """Captures the update as a CUDA graph and returns the function that replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            update()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()
    return graph.replay
