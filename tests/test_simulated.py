"""Kernels on the simulated CUDA device: it must find what it is there to find, and not what is right."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from simulated import build
from simulated.toys import launch, memory, run, words

ORDERS = [("ascending", 0), ("descending", 0), *(("shuffled", seed) for seed in range(4))]
POISON = 0xCDCDCDCD


@pytest.fixture(scope="module")
def compiled() -> ModuleType:
    return build.load()


@pytest.fixture
def device(compiled: ModuleType) -> Iterator[ModuleType]:
    compiled.reset()
    yield compiled
    compiled.reset()


class TestThreads:
    @pytest.mark.parametrize(("kind", "seed"), ORDERS)
    def test_every_thread_runs_once_and_knows_where_it_is(self, device, kind, seed):
        device.set_order(kind, seed)
        out = run(device, "where", 3, 48, None, 2 * 3 * 48).reshape(3, 48, 2)
        assert (out[..., 0] == np.arange(3)[:, None] * 1000 + np.arange(48)).all()
        assert (out[..., 1] == 3048).all()

    def test_order_is_as_asked(self, device):
        def turns(kind, seed=0, blocks="", grid=2):
            device.set_order(kind, seed, blocks)
            return run(device, "turns", grid, 96, None, 1 + 192, n=1 if grid == 1 else 0)[1:].tolist()

        assert turns("ascending") == list(range(192))
        assert turns("descending") == list(range(191, -1, -1))
        assert turns("ascending", blocks="descending") == [*range(96, 192), *range(96)]
        assert turns("shuffled", 1) == turns("shuffled", 1) != turns("shuffled", 2)
        assert sorted(turns("shuffled", 1)) == list(range(192))
        across = turns("shuffled", 1, grid=1)
        assert across[:96] != across[96:], "a barrier draws a new order"
        assert sorted(across[:96]) == sorted(across[96:]) == list(range(96))

    def test_some_shuffles_keep_warps_together_and_some_do_not(self, device):
        together = []
        for seed in range(16):
            device.set_order("shuffled", seed)
            order = run(device, "turns", 1, 96, None, 97)[1:].reshape(3, 32) // 32
            together.append(bool((order == order[:, :1]).all()))
        assert {True, False} == set(together)

    @pytest.mark.parametrize(("kind", "seed"), ORDERS)
    @pytest.mark.parametrize("block", [32, 48, 96, 512])
    def test_shuffles(self, device, kind, seed, block):
        device.set_order(kind, seed)
        x = words(2 * block)
        out = run(device, "shuffles", 2, block, x, 5 * x.size, n=32).reshape(-1, 5)
        thread = np.arange(x.size)
        start, lane = thread - thread % block % 32, thread % block % 32
        lanes = np.minimum(block - (thread % block - lane), 32)  # that the warp has
        for k, source in enumerate([lane * 0 + 5, lane ^ 3, lane + 2, lane - 2, lane ^ 1]):
            source = np.where((source < 0) | (source > 31), lane, source)
            there = source < lanes
            expected = np.where(there, x[np.where(there, start + source, 0)], POISON)
            assert (out[:, k] == expected).all(), k

    def test_shuffles_of_a_part_of_the_warp(self, device):
        x = words(32)
        out = run(device, "shuffles", 1, 32, x, 5 * 32, n=8).reshape(-1, 5)
        lane = np.arange(32)
        first, at = lane // 8 * 8, lane % 8
        assert (out[:, 0] == x[first + 5]).all()
        assert (out[:, 1] == x[lane ^ 3]).all()
        assert (out[:, 2] == x[np.where(at + 2 < 8, lane + 2, lane)]).all()
        assert (out[:, 3] == x[np.where(at >= 2, lane - 2, lane)]).all()

    @pytest.mark.parametrize(("kind", "seed"), ORDERS)
    def test_votes(self, device, kind, seed):
        device.set_order(kind, seed)
        x = np.zeros(3 * 96, np.uint32)
        x[[40, 63, 96 + 5]] = 9, 1, 2  # the third block has none
        ballot, any_of_warp, any_of_block = run(device, "votes", 3, 96, x, 3 * x.size).reshape(-1, 3).T
        expected = (x.reshape(-1, 32) != 0) @ (1 << np.arange(32, dtype=np.int64))
        assert (ballot == np.repeat(expected, 32)).all()
        assert (any_of_warp == np.repeat(expected != 0, 32)).all()
        assert (any_of_block == np.repeat([1, 1, 0], 96)).all()

    @pytest.mark.parametrize(("kind", "seed"), ORDERS)
    def test_parts_of_a_warp_go_different_ways(self, device, kind, seed):
        device.set_order(kind, seed)
        x = words(64)
        out = run(device, "halves", 1, 64, x, 64).reshape(2, 2, 16)
        assert (out[:, 0] == x.reshape(2, 2, 16)[:, 0].sum(1, keepdims=True)).all()
        assert (out[:, 1] == x.reshape(2, 2, 16)[:, 1, -1:]).all()

    @pytest.mark.parametrize(("kind", "seed"), ORDERS)
    @pytest.mark.parametrize(("grid", "block"), [(1, 32), (4, 128), (7, 512)])
    def test_sum_over_blocks(self, device, kind, seed, grid, block):
        device.set_order(kind, seed)
        x = words(5000)
        out = run(device, "sum", grid, block, x, 2 * (2 + grid), n=x.size, shared=block // 4 + 8)
        assert out.view(np.float64)[1] == x.sum()

    @pytest.mark.parametrize(("kind", "seed"), ORDERS)
    def test_atomics(self, device, kind, seed):
        device.set_order(kind, seed)
        x = words(96) + 1
        out = np.zeros(24, np.uint32)
        out[2] = 2**32 - 1
        wide = out[8:].view(np.int64)
        wide[2] = 2**62
        wide[4] = -(2**62)
        launch(device, "atomics", 3, 32, x, out)
        device.synchronize(0)
        assert out[:3].tolist() == [x.sum(), x.max(), x.min()]
        assert out[3:6].view(np.int32).tolist() == [-int(x.sum()), 0, -int(x.max())]
        assert out[6] in x
        assert out[7] in x
        high = x.astype(np.int64) << 32
        assert wide[:5].tolist() == [high.sum(), high.max(), high.min(), -high.max(), -high.min()]

    def test_bits(self, device):
        x = np.array([[0xF0F0, 0x8, 1, 77], [0, 0, 0, 0]], np.uint32)
        aligned = np.zeros(12, np.uint32)
        aligned = aligned[(-aligned.ctypes.data % 16) // 4 :][:8]
        aligned[:] = x.ravel()
        assert run(device, "bits", 1, 2, aligned, 8).tolist() == [8, 4, 31, 77, 0, 0, 32, 0]


class TestMistakes:
    """Of kernels. Each must be seen, and its right twin must not."""

    @pytest.mark.parametrize("name", ["reverse", "rotate"])
    def test_missing_barrier_depends_on_the_order(self, device, name):
        def results(kernel):
            seen = set()
            for kind, seed in ORDERS:
                device.set_order(kind, seed)
                seen.add(run(device, kernel, 2, 96, x, x.size, shared=4 * 96).tobytes())
            return seen

        x = words(192)
        expected = x.reshape(2, 96)[:, ::-1] if name == "reverse" else np.roll(x.reshape(6, 32), 1, axis=1)
        assert results(name) == {expected.tobytes()}
        assert len(results(f"{name}_without_barrier")) > 1

    @pytest.mark.parametrize(("kind", "seed"), ORDERS)
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("ends_before_barrier", r"waits at __syncthreads \(toys.cpp:\d+\)"),
            ("two_barriers", r"waits at __syncthreads .* waits at __syncthreads "),
            ("shuffle_and_barrier", "(__syncthreads .* __shfl_sync|__shfl_sync .* __syncthreads) "),
            ("two_shuffles", "(__shfl_xor_sync .* __shfl_sync|__shfl_sync .* __shfl_xor_sync) "),
        ],
    )
    def test_divergent_barrier(self, device, name, text, kind, seed):
        device.set_order(kind, seed)
        x, out = words(64), np.zeros(128, np.uint32)
        launch(device, name, 2, 64, x, out, n=40)
        with pytest.raises(RuntimeError, match=f"^kernel kernel: divergent barrier: thread .*{text}.*block"):
            device.synchronize(0)
        device.reset()
        device.set_order(kind, seed)
        x = words(128)  # fibers that were left half way run again
        assert (run(device, "reverse", 1, 128, x, 128, shared=512) == x[::-1]).all()

    def test_nobody_comes_to_the_barrier_of_an_ended_thread_unless_asked(self, device):
        for n in (0, 40, 63):
            device.set_strict(False)
            run(device, "ends_before_barrier", 2, 64, None, 1, n=n)

    def test_two_barriers_are_fine_if_all_go_the_same_way(self, device):
        assert (run(device, "two_barriers", 1, 64, None, 64, n=64) == 1).all()
        assert (run(device, "two_barriers", 1, 64, None, 64, n=0) == 2).all()

    def test_mask_without_the_lane(self, device):
        launch(device, "mask_without_itself", 1, 32)
        with pytest.raises(RuntimeError, match=r"thread 16 waits at __syncwarp .* mask that leaves it out"):
            device.synchronize(0)

    def test_shared_memory_is_dirty(self, device):
        assert (run(device, "unwritten", 2, 32, None, 64, shared=128) == POISON).all()
        device.set_poison(False)
        assert (run(device, "unwritten", 2, 32, None, 64, shared=128) == 7).all()

    def test_write_past_shared_memory(self, device):
        run(device, "past_shared", 2, 32, None, 1, n=68, shared=100)
        launch(device, "past_shared", 2, 32, n=69, shared=100)
        with pytest.raises(RuntimeError, match="write outside the shared memory of 100 bytes, block 0"):
            device.synchronize(0)

    def test_write_past_an_allocation(self, device):
        x, out = words(101), device.allocate(400)
        device.toy("copy", 2, 64, x.ctypes.data, out, 100)
        device.synchronize(0)
        assert (memory(out, 400).view(np.uint32) == x[:100]).all()
        device.toy("copy", 2, 64, x.ctypes.data, out, 101)
        with pytest.raises(RuntimeError, match="kernel: write past the end of an allocation of 400 bytes"):
            device.synchronize(0)
        device.reset()
        device.release(out)

    def test_stack(self, device):
        launch(device, "deep", 1, 2, None, np.zeros(2, np.uint32))
        with pytest.raises(RuntimeError, match=r"thread [01] used more than 64 KiB of stack"):
            device.synchronize(0)

    @pytest.mark.parametrize(
        ("grid", "block", "shared"), [(1, 1025, 0), (0, 32, 0), (1, 0, 0), (1, 32, 227 * 1024 + 1)]
    )
    def test_launch_that_no_device_takes(self, device, grid, block, shared):
        with pytest.raises(RuntimeError, match="invalid"):
            launch(device, "where", grid, block, shared=shared)
        assert device.pending(0) == 0

    def test_stream_of_another_device(self, device):
        stream = device.create_stream(1)
        out = np.zeros(64, np.uint32)
        with pytest.raises(RuntimeError, match="invalid resource handle"):
            launch(device, "where", 1, 32, None, out, stream=stream)
        launch(device, "where", 1, 32, None, out, stream=stream, device=1)
        device.synchronize(stream)
        assert out[2] == 1
        device.destroy_stream(stream)

    def test_nothing_runs_after_a_failure(self, device):
        out = np.zeros(64, np.uint32)
        launch(device, "ends_before_barrier", 1, 32)
        launch(device, "where", 1, 32, None, out)
        with pytest.raises(RuntimeError, match="divergent"):
            device.advance(0)
        with pytest.raises(RuntimeError, match="divergent"):
            launch(device, "where", 1, 32, None, out)
        with pytest.raises(RuntimeError, match="divergent"):
            device.synchronize(0)
        assert not out.any()
        assert "divergent" in device.failure()


class TestBuild:
    def test_is_built_once(self):
        assert build.build() == build.build()
        assert build.load() is build.load()

    def test_a_module_with_more_in_it_is_another(self, tmp_path):
        plain = build.load()
        more = tmp_path / "more.cu"
        more.write_text("#include <Python.h>\nint nothing_else_has_this_name;\n", "utf-8")
        other = build.load([more])
        assert other is not plain
        assert other is build.load([more])
        plain.reset()
        other.reset()
        run(other, "where", 1, 32, None, 64)
        assert (plain.counters()["launches"], other.counters()["launches"]) == (0, 1)

    def test_no_compiler_is_a_reason_to_skip(self, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler")
        with pytest.raises(pytest.skip.Exception, match="there is no no-such-compiler"):
            build.load()

    def test_error_of_the_compiler_is_shown(self, tmp_path):
        build.compiler()
        broken = tmp_path / "broken.cu"
        broken.write_text("int x = nonsense;\n", "utf-8")
        with pytest.raises(RuntimeError, match="nonsense"):
            build.build([broken])
