"""CuPy arrays on a GPU, where CuPy is installed and the extension was built for CUDA."""

from __future__ import annotations

import numpy as np
import pytest
import values
from gpu_device import REASON, needed
from small_streams import gradient, stream
from streams import assert_same_stream

import gradtail

pytestmark = needed
cupy = pytest.importorskip("cupy", reason="CuPy is not installed") if REASON is None else None
# bfloat16 is no dtype of CuPy's
DTYPES = ("float64", "float32", "float16")


@pytest.mark.parametrize("dtype", DTYPES)
def test_summaries(dtype):
    for kind in values.KINDS:
        x = values.make(dtype, 10_007, kind, 1)
        with values.quiet():
            expected = gradtail.summarize(x[1:], backend="numpy")
        values.assert_same(gradtail.summarize(cupy.asarray(x)[1:]), expected, 1e-6, x[1:])


@pytest.mark.parametrize("own", [False, True])
def test_streams(own):
    """Updates are enqueued on the stream that is CuPy's current one."""
    found, expected = stream("native"), stream("numpy")
    side = cupy.cuda.Stream(non_blocking=True) if own else cupy.cuda.Stream.null
    with side:
        for step in range(12):
            found.update({name: cupy.asarray(x) for name, x in gradient(step).items()}, step)
            expected.update(gradient(step), step)
    assert_same_stream(found, expected)
    assert found._held.device is not None, "the kernels, not the slow path"


def test_arrays_of_torch_and_cupy_in_one_stream():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    found, expected = stream("native"), stream("numpy")
    for step in range(6):
        make = cupy.asarray if step % 2 else lambda x: torch.from_numpy(x.copy()).cuda()
        found.update({name: make(x) for name, x in gradient(step).items()}, step)
        expected.update(gradient(step), step)
    np.testing.assert_allclose(found.history.norm, expected.history.norm, rtol=2e-6)
    assert_same_stream(found, expected)
