"""The devices of this machine, as a configuration wants them."""

from charlstm.config import Config


def set_up_devices(config: Config, num_cpu_devices: int = 0) -> None:
    """Splits this machine's CPU into devices and sets XLA's flags; before the first array.

    Args:
      config: decides how many devices are best.
      num_cpu_devices: that many instead; 0 chooses.
    """
    from charlstm.model.size import hidden_size_within
    from charlstm.runtime import distributed, meshes, xla

    xla.keep_compiled_programs()
    xla.set_command_buffers(config.model.command_buffers)
    mesh = config.mesh
    model = config.model
    # The text has not been read yet: of a corpus's own alphabet the size is a guess.
    symbols = 256 if model.alphabet == "bytes" else 100
    budgeted = hidden_size_within(config, symbols) if model.parameter_budget else 0
    automatic = meshes.cpu_devices_for(
        budgeted or model.hidden_size,
        config.data.num_streams,
        config.data.window_length,
        mesh.data,
        mesh.model,
        distributed.num_processes_asked_for(),
    )
    meshes.set_cpu_devices(num_cpu_devices or automatic)
