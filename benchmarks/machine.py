"""Which machine a figure was measured on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path


def name(*packages: str) -> str:
    """Processor, cores, Python and the versions of these packages."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    told = [f"{processor}, {os.cpu_count()} cores", f"Python {sys.version.split()[0]}"]
    return ", ".join([*told, *(f"{package} {version(package)}" for package in packages)])
