"""What every benchmark shares: the machine it ran on, its JSON, the median of ratios and the table.

Nothing here measures. A result file holds the machine, the command and the raw figures of one part, so
that a ratio in a README can be computed again from it.
"""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory in MiB, kernel, versions, compiler."""
    return {
        "cpu": _first_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int((_first_value("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) // 1024,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "compiler": _compiler(),
    }


def write(name: str, command: str, figures: dict[str, Any]) -> Path:
    """Write one part's figures with their conditions; return the path of `results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"name": name, "command": command, "machine": machine(), "figures": figures}
    path.write_text(json.dumps(content, indent=1, default=_as_json) + "\n")
    return path


def read(name: str) -> dict[str, Any] | None:
    """Return what `write` wrote last under this name, or None."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the median of a[i] / b[i], both of alternating rounds."""
    return median(x / y for x, y in zip(a, b, strict=True))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table, aligned for people; columns of figures to the right."""
    cells = [list(headers), *([str(cell) for cell in row] for row in rows)]
    columns = list(zip(*cells, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    is_right = [i > 0 and all(_is_figure(cell) for cell in column[1:]) for i, column in enumerate(columns)]
    shapes = list(zip(widths, is_right, strict=True))
    lines = [
        f"| {' | '.join(_pad(cell, *shape) for cell, shape in zip(row, shapes, strict=True))} |"
        for row in cells
    ]
    rule = ["-" * (width + 1) + ":" if right else "-" * (width + 2) for width, right in shapes]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def _pad(cell: str, width: int, is_right: bool) -> str:
    return cell.rjust(width) if is_right else cell.ljust(width)


def _is_figure(cell: str) -> bool:
    return cell[:1] in "-.0123456789" or cell[:2] in ("1/", "≤ ", "≥ ")


def _first_value(path: str, key: str) -> str | None:
    """The value of the first `key : value` line of a file of the kernel, or None."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith(key))
    return next(found, None)


def _compiler() -> str | None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    return done.stdout.splitlines()[0] if done.stdout else None


def _as_json(value: Any) -> Any:
    """Numpy's numbers and arrays as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not belong into a result file")
