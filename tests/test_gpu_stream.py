"""Streams of tensors on a GPU: what they find is what the NumPy backend finds, and nobody waits."""

from __future__ import annotations

import numpy as np
import pytest
import values
from gpu_device import (
    DEVICE,
    as_tensor,
    as_tensors,
    busy,
    exhausted_memory,
    free_memory,
    needed,
    no_waiting_in_torch,
)
from small_streams import SHAPES, assert_equal_states, filled, gradient, stream
from streams import assert_same_stream

import gradtail
from gradtail import GradientStream
from gradtail import native as extension

torch = pytest.importorskip("torch", reason="streams of a GPU are tested with PyTorch")

pytestmark = needed
STEPS = range(12)


def found_on_device(steps=STEPS, **settings):
    """Return what :func:`small_streams.filled` does, of tensors on the device."""
    found = stream("native", **settings)
    for step in steps:
        found.update(as_tensors(gradient(step)), step)
    return found


def steady(seed=0, n=300):
    """Return ``n`` arrays of the sizes of a small transformer, in three dtypes."""
    sizes = [(1, 64, 256, 4096, 10_007)[i % 5] for i in range(n)]
    dtypes = ("float32", "bfloat16", "float16")
    return {f"p{i}": values.make(dtypes[i % 3], size, "normal", seed + i) for i, size in enumerate(sizes)}


class TestSummaries:
    @pytest.mark.parametrize("kind", values.KINDS)
    @pytest.mark.parametrize("dtype", values.DTYPES)
    def test_every_kind_and_size(self, dtype, kind):
        for size in values.SIZES:
            x = values.make(dtype, size, kind, size)
            with values.quiet():
                expected = gradtail.summarize(x, backend="numpy")
            values.assert_same(gradtail.summarize(as_tensor(x)), expected, 1e-6, x)

    @pytest.mark.parametrize("dtype", values.DTYPES)
    def test_misaligned_slices(self, dtype):
        x = values.make(dtype, 70_001, "shifted", 1)
        there = as_tensor(x)
        for first in (1, 2, 3, 5, 8):
            expected = gradtail.summarize(x[first:-first], backend="numpy")
            values.assert_same(gradtail.summarize(there[first:-first]), expected, 1e-6, x[first:-first])

    def test_a_transposed_matrix_is_read_as_it_lies(self):
        x = values.make("float32", 64 * 129, "normal", 3).reshape(64, 129)
        values.assert_same(
            gradtail.summarize(as_tensor(x).T), gradtail.summarize(x, backend="numpy"), 1e-6, x
        )

    def test_lists(self):
        arrays = list(steady().values())
        found = gradtail.summarize([as_tensor(x) for x in arrays])
        values.assert_same(found, gradtail.summarize(arrays, backend="numpy"), 1e-6, *arrays)


class TestStreams:
    @pytest.mark.parametrize("settings", [{}, {"coordinates": "dense"}, {"sketch": 0}, {"bits": 7}])
    def test_equal_the_specification(self, settings):
        assert_same_stream(found_on_device(**settings), filled("numpy", STEPS, **settings))

    def test_read_between_steps(self):
        found, expected = stream("native"), stream("numpy")
        for step in STEPS:
            found.update(as_tensors(gradient(step)), step)
            expected.update(gradient(step), step)
            if step % 3 != 1:
                assert_same_stream(found, expected)

    def test_three_hundred_tensors(self):
        found, expected = (GradientStream(window=4, backend=name) for name in ("native", "numpy"))
        for step in range(6):
            arrays = steady(1000 * step)
            found.update(as_tensors(arrays))
            expected.update(arrays)
        assert_same_stream(found, expected)

    def test_float64_among_them(self):
        found, expected = stream("native"), stream("numpy")
        for step in range(4):
            arrays = {name: x.astype(np.float64) for name, x in gradient(step).items()}
            arrays["a.bias"] = arrays["a.bias"].astype(np.float16)
            found.update(as_tensors(arrays))
            expected.update(arrays)
        assert_same_stream(found, expected)

    def test_shards_merge_into_the_whole(self):
        """Two streams on the device, each with some rows and columns of a matrix, as sharded training has."""
        parts = {0: ((0, 0), (40, 4)), 1: ((0, 4), (40, 5))}
        expected = filled("numpy", STEPS)
        found = [stream("native"), stream("native")]
        for step in STEPS:
            arrays = gradient(step)
            for i, own in enumerate(found):
                (row, column), (rows, columns) = parts[i]
                x = arrays["a.weight"][row : row + rows, column : column + columns]
                mine = {"a.weight": x} | (
                    {name: arrays[name] for name in arrays if name != "a.weight"} if i else {}
                )
                own.update(as_tensors(mine), step, places={"a.weight": (SHAPES["a.weight"], (row, column))})
        assert_same_stream(found[0].merge(found[1]), expected)

    def test_saved_there_and_gone_on_with_here(self, tmp_path):
        found = found_on_device(range(6))
        found.save(tmp_path / "stream.npz")
        loaded = GradientStream.load(tmp_path / "stream.npz", backend="numpy")
        for step in range(6, 12):
            loaded.update(gradient(step), step)
        assert_same_stream(loaded, filled("numpy", STEPS))

    def test_rollback_and_discard(self):
        streams = []
        for found in (found_on_device(), filled("numpy", STEPS)):
            found.discard()
            found.rollback(7)
            streams.append(found)
        for step in range(8, 12):
            streams[0].update(as_tensors(gradient(step)), step)
            streams[1].update(gradient(step), step)
        found, expected = streams
        assert found.last_step == expected.last_step == 11
        np.testing.assert_allclose(found.history.norm, expected.history.norm, rtol=2e-6)
        assert found.summary(steps="newest").count == expected.summary(steps="newest").count


class TestSameBits:
    def test_in_every_run(self):
        expected = found_on_device()
        for _ in range(5):
            assert_equal_states(found_on_device(), expected)

    def test_on_side_streams(self):
        """Some steps on a stream of their own; the tensors are made there too."""
        expected, found = found_on_device(), stream("native")
        sides = [torch.cuda.Stream() for _ in range(2)]
        for step in STEPS:
            with torch.cuda.stream(sides[step % 2]):
                found.update(as_tensors(gradient(step)), step)
        assert_equal_states(found, expected)

    def test_after_a_side_stream_that_is_late(self):
        """A step on another stream begins when the one before has ended."""
        expected, found, side = found_on_device(range(4)), stream("native"), torch.cuda.Stream()
        kept = [as_tensors(gradient(step)) for step in range(4)]
        torch.cuda.synchronize()
        found.update(kept[0], 0)
        with torch.cuda.stream(side):
            torch.cuda._sleep(200_000_000)
            found.update(kept[1], 1)
        found.update(kept[2], 2)
        found.update(kept[3], 3)
        assert_equal_states(found, expected)

    def test_in_memory_that_others_left_full(self):
        """Nothing of what is kept or told was never written."""
        expected = found_on_device()
        for pattern in (0xFF, 0xCD):
            poison = torch.full(
                (min(1 << 30, free_memory() // 2),), pattern, dtype=torch.uint8, device=DEVICE
            )
            del poison
            free_memory()
            assert_equal_states(found_on_device(), expected)


class TestHost:
    def test_updates_do_not_wait(self):
        """The device works on something else; four steps are enqueued meanwhile, a block of them at most."""
        found, arrays = GradientStream(), as_tensors(steady())
        for _ in range(12):
            found.update(arrays)
        for _ in range(25):
            with busy(0.5) as event, no_waiting_in_torch():
                for _ in range(4):
                    found.update(arrays)
                assert found.latest() is not None
                assert not event.query(), "an update has waited for the device"
        assert found.steps == 112

    def test_latest_lags_and_wait_waits(self):
        found = stream("native")
        for step in range(3):
            found.update(as_tensors(gradient(step)), step)
        assert found.wait().step == 2
        arrays = as_tensors(gradient(3))
        with busy() as event:
            found.update(arrays, 3)
            assert found.latest().step == 2
            assert not event.query()
            newest = found.wait()
            assert event.query()
        assert newest.step == 3
        assert newest.norm == np.inf  # see small_streams
        assert newest.nonfinite == 1

    def test_two_launches(self):
        for n in (3, 300):
            found, arrays = GradientStream(), as_tensors(steady(n=n))
            for _ in range(4):
                found.update(arrays)
            engine = found._held.device._engine
            before = engine.launches
            for _ in range(10):
                found.update(arrays)
            assert engine.launches - before == 20

    def test_memory_is_flat_after_the_first_steps(self):
        found, arrays = GradientStream(), as_tensors(steady())
        for _ in range(40):
            found.update(arrays)
        torch.cuda.synchronize()
        before = torch.cuda.mem_get_info()[0], torch.cuda.memory_stats()["segment.all.allocated"]
        for _ in range(200):
            found.update(arrays)
        torch.cuda.synchronize()
        after = torch.cuda.mem_get_info()[0], torch.cuda.memory_stats()["segment.all.allocated"]
        assert after == before

    def test_addresses_may_change_every_step(self):
        found, expected, kept = stream("native"), stream("numpy"), []
        for step in range(40):
            kept.append(as_tensors(gradient(step)))  # so that none gets the memory of another
            found.update(kept[-1], step)
            expected.update(gradient(step), step)
        assert_same_stream(found, expected)

    def test_hundreds_of_steps_without_a_look(self):
        """More than the device keeps norms of."""
        found, expected = stream("native"), stream("numpy")
        x = values.make("float32", 500, "normal", 1)
        there = as_tensor(x)
        for _ in range(1100):
            found.update({"x": there})
            expected.update({"x": x})
        assert_same_stream(found, expected)


class TestRefusals:
    def test_arrays_elsewhere_leave_the_stream_as_it_was(self):
        found, expected = found_on_device(), found_on_device()
        elsewhere = [gradient(12)]
        if torch.cuda.device_count() > 1:
            elsewhere.append({name: x.to("cuda:1") for name, x in as_tensors(gradient(12)).items()})
        for arrays in elsewhere:
            with pytest.raises(ValueError, match="arrays: expected arrays on cuda:0 as before"):
                found.update(arrays, 12)
        mixed = as_tensors(gradient(12))
        mixed["a.bias"] = mixed["a.bias"].cpu()
        with pytest.raises(ValueError, match="device"):
            found.update(mixed, 12)
        assert_equal_states(found, expected)
        found.update(as_tensors(gradient(12)), 12)
        expected.update(as_tensors(gradient(12)), 12)
        assert_equal_states(found, expected)

    def test_no_memory_leaves_the_stream_as_it_was(self):
        found, expected = found_on_device(memory="2GiB"), found_on_device(memory="2GiB")
        more = {f"more.{i}": np.ones(1000, np.float32) for i in range(400)}
        there = as_tensors({**gradient(12), **more})
        with exhausted_memory(), pytest.raises(extension.engine.CudaError, match="memory"):
            found.update(there, 12)
        assert found.steps == 12
        assert found.last_step == 11
        assert_same_stream_of_known(found, expected)
        found.update(there, 12)
        expected.update(there, 12)
        assert_same_stream(found, expected)

    def test_no_memory_for_the_first_step(self):
        found = GradientStream(memory="2GiB")
        there = as_tensors({f"p{i}": np.ones(1000, np.float32) for i in range(400)})
        with exhausted_memory(), pytest.raises(extension.engine.CudaError, match="memory"):
            found.update(there)
        assert found.steps == 0
        found.update(there)
        assert found.summary().count == 400_000


def assert_same_stream_of_known(found, expected):
    """Compare what was observed, whatever names have been heard of since."""
    for name in expected.names:
        values.assert_same(found.summary(name), expected.summary(name), 1e-6, *[np.zeros(0)])
    np.testing.assert_array_equal(found.history.norm, expected.history.norm)
    np.testing.assert_array_equal(found.ring().vectors, expected.ring().vectors)


class TestLarge:
    def test_more_than_two_to_the_31_elements(self):
        n, times = 1 << 20, 2049
        if free_memory() < 3 * 2 * n * times:
            pytest.skip("needs 13 GB of free memory on the device")
        x = values.make("bfloat16", n, "normal", 1)
        there = as_tensor(x).repeat(times)
        assert there.numel() > 2**31
        one, found = gradtail.summarize(x, backend="numpy"), gradtail.summarize(there)
        assert (found.count, found.max_abs) == (n * times, one.max_abs)
        a, b = found.state_dict(), one.state_dict()
        np.testing.assert_array_equal(a["bins"], b["bins"])
        np.testing.assert_array_equal(a["counts"], times * np.asarray(b["counts"]))
        assert a["sum2"] == pytest.approx(times * b["sum2"], rel=1e-6)
        there[-1] = torch.inf
        assert gradtail.summarize(there).first_nonfinite == n * times - 1
        stream = GradientStream(tracks=0, coordinates=None)
        stream.update({"x": there})
        assert stream.first_nonfinite.index == n * times - 1

    def test_a_bin_with_more_than_two_to_the_32_values(self):
        n = 2**32 + 7
        if free_memory() < 3 * n:
            pytest.skip("needs 13 GB of free memory on the device")
        found = gradtail.summarize(torch.full((n,), 1.5, dtype=torch.bfloat16, device=DEVICE))
        assert found.state_dict()["counts"].tolist() == [n]
        assert found.norm == pytest.approx(1.5 * n**0.5, rel=1e-6)


@pytest.mark.skipif(
    extension.engine is None or torch.cuda.device_count() < 2, reason="needs two CUDA devices"
)
def test_a_stream_on_each_device():
    expected, before = filled("numpy", STEPS), torch.cuda.current_device()
    found = [stream("native") for _ in range(2)]
    for step in STEPS:
        for i, own in enumerate(found):
            own.update({name: x.to(f"cuda:{i}") for name, x in as_tensors(gradient(step)).items()}, step)
    assert torch.cuda.current_device() == before
    assert_equal_states(found[1], found[0])
    assert_same_stream(found[0], expected)
