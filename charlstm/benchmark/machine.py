"""Says what was measured on: the devices, and the versions of libraries."""

import datetime
import importlib.metadata
import platform
from pathlib import Path
from typing import Any


def about() -> dict[str, Any]:
    """Returns the devices of this process, versions and the date, as JSON values."""
    import jax

    import charlstm

    devices = jax.local_devices()
    kind = devices[0].device_kind
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device_kind": cpu_model() if devices[0].platform == "cpu" else kind,
        "platform": devices[0].platform,
        "num_devices": len(devices),
        "versions": {
            "charlstm": charlstm.__version__,
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
            "python": platform.python_version(),
        },
    }


def cpu_model() -> str:
    """Returns the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
