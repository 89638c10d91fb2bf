"""The device that a run computes on."""

import torch

from ctkd.engine.config.run import Run
from ctkd.errors import ConfigError


def prepare_device(run: Run) -> torch.device:
    """The device of the run, made the current one; sets the number of threads too.

    Raises:
        ConfigError: the device cannot be used.
    """
    if run.runtime.threads is not None:
        torch.set_num_threads(run.runtime.threads)
    try:
        device = device_of(run)
        torch.zeros(1, device=device)
        if device.type == "cuda":
            if device.index is not None:
                torch.cuda.set_device(device)  # streams and captures are the current device's
            # Otherwise a gradient may be summed in a different order each time.
            torch.backends.cudnn.deterministic = True
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            f"Runtime.device = {run.runtime.device!r} cannot be used: {reason}. "
            "--device=auto takes a GPU where there is one, --device=cpu takes none"
        ) from error
    return device


def device_of(run: Run) -> torch.device:
    """The device that the run's settings name."""
    name = run.runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def to_device(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The network on the device, its convolutions in channels-last order."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
