"""Which accelerators are here: asked of the driver, without a framework, and of the frameworks, in a child."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from curvebench.errors import DeviceError
from curvebench.schedule import cores, server
from curvebench.schedule.isolation import Isolation
from curvebench.spec import RunSpec
from curvebench.types import Json

DRIVER = Path("/proc/driver/nvidia/gpus")
DEVICE = re.compile(r"cpu|cuda(?::(\d+))?")


def names(device: str) -> tuple[str, ...]:
    """The accelerators that a run on ``device`` uses, by the names that the frameworks give them; none on the CPU.

    Raises:
        DeviceError: not the name of a device, or the device is not here.
    """
    match = DEVICE.fullmatch(device)
    if match is None:
        raise DeviceError(f"--device {device}: must be cpu, cuda or cuda:<number>")
    if device == "cpu":
        return ()
    found = installed()
    index = int(match[1] or 0)
    if not found:
        raise DeviceError(
            f"--device {device}: no NVIDIA GPU is on this machine (or its driver is not loaded): use --device cpu"
        )
    if index >= len(found):
        there = ", ".join(f"cuda:{i} ({name})" for i, name in enumerate(found))
        raise DeviceError(f"--device {device}: there is only {there}")
    return (found[index],)


def check(specs: Iterable[RunSpec]) -> None:
    """Make sure, in a process that ends again, that the frameworks can use the devices of these runs.

    Raises:
        DeviceError: the driver has the device, but a framework was installed without support for it.
    """
    asked = {(s.framework, s.device): s for s in specs if s.device != "cpu"}
    for (framework, device), spec in sorted(asked.items()):
        names(device)
        isolation = Isolation(f"{__name__}:probe", server.preload_for([framework]))
        isolation.start(spec, cores.available(), 120.0)
        try:
            outcomes = isolation.wait(150.0)
        finally:
            isolation.kill()
        found = outcomes[0].record if outcomes else None
        why = found["problem"] if found else (outcomes[0].reason if outcomes else "no answer")
        if why is not None:
            raise DeviceError(f"--device {device}: {framework} cannot use it: {why}")


def probe(spec: RunSpec) -> Json:
    """Runs in a child: ``{"problem": None}``, or why the framework cannot use the device."""
    index = int((DEVICE.fullmatch(spec.device) or ["", None])[1] or 0)
    if spec.framework == "torch":
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        built = torch.version.cuda is not None
        absent = "it sees no GPU" if built else "this build of torch has no CUDA: install the one that has"
    else:
        import jax

        try:
            count = len(jax.devices("gpu"))
        except RuntimeError:
            count = 0
        absent = "it sees no GPU: install jax[cuda12]"
    return {"problem": None if index < count else absent if count == 0 else f"it sees only {count}"}


@cache
def installed() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs in the order of their bus addresses, as the driver says; empty without a driver."""
    program = shutil.which("nvidia-smi")
    if program is not None:
        query = [program, "--query-gpu=name", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0:
            return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())
    return tuple(_model(path) for path in sorted(DRIVER.glob("*/information")))


def _model(path: Path) -> str:
    for line in path.read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return value.strip()
    return "unknown NVIDIA GPU"
