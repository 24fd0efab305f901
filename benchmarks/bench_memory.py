"""Memory that a pass takes beyond its input."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from .harness import Row, Table

# Peak resident memory before and after the pass, the input being there already.
SCRIPT = """
import resource, sys
import numpy as np
import gradtail
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gradtail.summarize(np.ones(10**6, np.float32))
x = np.random.default_rng(0).standard_normal(int(sys.argv[1]), np.float32)
before = peak()
assert gradtail.summarize(x).count == x.size
print((peak() - before) * 1024)
"""


def beyond_input(n: int) -> int:
    command = [sys.executable, "-c", SCRIPT, str(n)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_the_input(table: Table, largest: int) -> None:
    small, large = min(10**7, largest // 10), min(10**8, largest)
    grown = beyond_input(large) - beyond_input(small)
    goal = "< 1 MiB"
    case = f"peak at {large:.0e} less peak at {small:.0e}: {grown / 2**20:.2f} MiB"
    table.add(Row("memory beyond the input", case, 0.0, 0.0, 0, 0, None, goal, grown < 2**20))


def test_memory_of_a_stream(table: Table) -> None:
    import numpy as np

    from gradtail import GradientStream

    rng: Any = np.random.default_rng(0)
    stream = GradientStream()
    for _ in range(100):
        stream.update({f"layer{i}": rng.standard_normal(5000, np.float32) for i in range(100)})
    used = stream.nbytes
    table.add(
        Row("memory of a stream", f"100 tensors, 100 steps: {used / 2**20:.1f} MiB", 0.0, 0.0, 0, 0, None)
    )
