"""CoordinateMoments on the simulated device, against the specification over several steps."""

from __future__ import annotations

import numpy as np
import pytest
import values
from device import DEVICE_PIECE, SimulatedEngine
from places import Block, shards
from places import views as views_of_blocks

from gradtail.backends import numpy as specification
from gradtail.backends.device import UNSCALED
from gradtail.states.coordinates import PIECE, cells_of, followed

GROWTH = 20  # doublings beyond its scale after which a piece is scaled anew


@pytest.fixture
def device(simulated):
    simulated.reset()
    yield simulated
    simulated.reset()


class Followed:
    """The moments of coordinates of some views, on the device and by the specification."""

    def __init__(self, module, described, cell, elements=None, without=()):
        n = len(described.table)
        self.pieces, self.live = np.zeros(n, DEVICE_PIECE), np.zeros(n, PIECE)
        self.memory, self.states, self.counts = [], [], []
        self.scaled = np.zeros(n, bool)
        for v, view in enumerate(described.table):
            start, size, run, stride = (int(view[field]) for field in ("start", "size", "run", "stride"))
            per_run, cells = cells_of(start, size, run, stride, cell)
            state, count = np.zeros((cells, 4, 8), np.float32), np.zeros(cells, np.uint32)
            whole = elements or start + size
            own = [module.Memory(0, max(bytes_, 16)) for bytes_ in (state.nbytes, count.nbytes, 4)]
            own[2].write(np.array([UNSCALED], np.int32))
            self.memory.append(own)
            self.states.append(state)
            self.counts.append(count)
            if size and v not in without:
                addresses = [memory.address for memory in own]
                self.pieces[v] = (*addresses, per_run, whole, 0, cell, 0)
                self.live[v] = (state.ctypes.data, count.ctypes.data, per_run, whole, 0, cell)

    def read(self, v):
        """Return state, count and exponent of a view on the device."""
        state, count = np.zeros_like(self.states[v]), np.zeros_like(self.counts[v])
        exponent = np.zeros(1, np.int32)
        for memory, to in zip(self.memory[v], (state, count, exponent), strict=True):
            if to.size:
                memory.read(to)
        return state, count, int(exponent[0])

    def bytes(self):
        """Everything on the device, as text."""
        return "".join(part.tobytes().hex() for v in range(len(self.pieces)) for part in self.read(v)[:2])

    def update(self, described):
        """Let the specification take a step, with the scales that the device takes."""
        largest = []
        for raw, dtype in described.arrays():
            with values.quiet():
                x = np.abs(dtype.widen(raw).astype(np.float64))
            largest.append(np.max(x[np.isfinite(x)], initial=0.0))
        seen = np.frexp(largest)[1]
        for v in np.flatnonzero((np.array(largest) > 0) & ~self.scaled):
            self.live["exponent"][v], self.scaled[v] = seen[v], True
        specification.update_coordinates(described, self.live)
        for v in np.flatnonzero((np.array(largest) > 0) & (seen > self.live["exponent"] + GROWTH)):
            shift = int(self.live["exponent"][v]) - int(seen[v])
            power = np.array([1, 2, 3, 4], np.int32)[None, :, None]
            self.states[v][...] = np.ldexp(self.states[v], power * shift)
            self.live["exponent"][v] = seen[v]

    def check(self, described, steps):
        """Compare the device with the specification: float32 states, rounded once a step."""
        for v in range(len(self.pieces)):
            state, count, exponent = self.read(v)
            known = self.scaled[v] and self.live["state"][v]
            assert exponent == (int(self.live["exponent"][v]) if known else UNSCALED)
            np.testing.assert_array_equal(count, self.counts[v])
            if not self.live["state"][v]:
                assert not state.any()
                continue
            view = described.table[v]
            where = [int(view[field]) for field in ("start", "size", "run", "stride")]
            rows, lanes, _ = followed(*where, self.live[v], int(view["key"]))
            if not len(rows):
                assert not state.any()
                continue
            mine, wanted = (x[rows, :, lanes].astype(np.float64) for x in (state, self.states[v]))
            spread = np.sqrt(np.max(wanted[:, 1] / np.maximum(self.counts[v][rows], 1)))
            largest = np.max(np.abs(wanted[:, 0])) + spread
            for p in range(4):
                scale = largest if p == 0 else steps * largest ** (p + 1)
                assert np.all(np.abs(mine[:, p] - wanted[:, p]) <= 2e-6 * steps * scale + 1e-37), (v, p)
            outside = np.ones(state.shape[::2], bool)
            outside[rows, lanes] = False
            assert not state.transpose(0, 2, 1)[outside].any(), "lanes outside a view are left alone"


def run(device, blocks_of_step, steps, cell, elements, check_each=True, blocks=3, without=()):
    """Make steps; ``blocks_of_step(step)`` are the blocks of one."""
    engine = SimulatedEngine(device, blocks=blocks)
    first = blocks_of_step(0)
    described = views_of_blocks(first)
    found = Followed(device, described, cell, elements, without)
    plan = engine.prepare(described, None, found.pieces)
    for step in range(steps):
        current = blocks_of_step(step)
        for block, new in zip(first, current, strict=True):
            block.x[...] = new.x
        engine.update(plan, described)
        engine.wait()
        found.update(described)
        if check_each:
            found.check(described, step + 1)
    device.check_redzones()
    return found


def steps_of(dtype, size, scale=lambda step: 1.0, seed=0):
    """Make the same kind of values for each step."""

    def make(step):
        rng = np.random.default_rng([seed, step])
        base = np.random.default_rng(seed).standard_normal(size)
        with np.errstate(over="ignore", under="ignore"):
            return ((rng.standard_normal(size) + base) * scale(step)).astype(values.DTYPES[dtype])

    return make


@pytest.mark.parametrize("dtype", values.DTYPES)
@pytest.mark.parametrize("cell", [1, 2, 64])
@pytest.mark.parametrize("size", [5, 8, 3001])
def test_steps(device, dtype, cell, size):
    make = steps_of(dtype, size)
    found = run(device, lambda step: [Block(make(step), 99)], 6, cell, size)
    assert found.counts[0].max() == 6


@pytest.mark.parametrize("cell", [1, 2, 64])
@pytest.mark.parametrize("size", [24, 3000, 24_000])
def test_shards(device, cell, size):
    make = steps_of("float32", size)
    whole = run(device, lambda step: [Block(make(step), 31)], 3, cell, size)
    followed_by_whole = _by_index(whole, [Block(make(0), 31)])
    assert followed_by_whole
    for k in range(len(shards(make(0), 31))):
        found = run(device, lambda step, k=k: shards(make(step), 31)[k], 3, cell, size)
        joined = _by_index(found, shards(make(0), 31)[k])
        assert joined.keys() == followed_by_whole.keys()
        np.testing.assert_allclose(
            [joined[i] for i in followed_by_whole], list(followed_by_whole.values()), rtol=1e-5, atol=1e-6
        )


def _by_index(found, blocks):
    """Moments times their scale, and counts, of each coordinate."""
    moments = {}
    for v, block in enumerate(blocks):
        state, count, exponent = found.read(v)
        where = (block.start, block.x.size, block.run, block.stride)
        for row, lane, index in zip(
            *(part.tolist() for part in followed(*where, found.live[v], block.key)), strict=True
        ):
            assert index not in moments
            scaled = np.ldexp(state[row, :, lane].astype(np.float64), np.arange(1, 5) * exponent)
            moments[index] = (*scaled.tolist(), int(count[row]))
    return moments


def test_more_cells_than_a_task_has(device):
    """Pieces with and without memory, and tasks that begin in the middle of one."""
    sizes = [3, 9000, 0, 17, 800, 8 * 1024, 8 * 1023, 1]
    makes = [steps_of("float32", size, seed=i) for i, size in enumerate(sizes)]
    found = run(
        device,
        lambda step: [Block(make(step), i, start=i) for i, make in enumerate(makes)],
        2,
        1,
        1 << 20,
        without=(0, 3, 7),
    )
    for v in (0, 3, 7):
        state, count, exponent = found.read(v)
        assert not state.any()
        assert not count.any()
        assert exponent == UNSCALED


class TestScale:
    def test_of_the_first_values_that_are_not_zero(self, device):
        make = steps_of("float32", 100, lambda step: 0.0 if step < 2 else 1e-30)
        found = run(device, lambda step: [Block(make(step), 1)], 5, 1, 100)
        assert found.counts[0].tolist() == [5] * 13
        assert found.read(0)[2] < -90

    @pytest.mark.parametrize("doublings", [19, 21, 25, 40])
    def test_grows_where_values_do(self, device, doublings):
        make = steps_of("float32", 100, lambda step: 2.0 ** (doublings * (step >= 2)))
        found = run(device, lambda step: [Block(make(step), 1)], 5, 1, 100)
        exponent = found.read(0)[2]
        assert (exponent > 15) == (doublings > GROWTH)
        assert (found.counts[0][:12] == (5 if doublings < 28 else 4)).all()

    def test_does_not_shrink(self, device):
        make = steps_of("float32", 100, lambda step: 2.0 ** (-3 * step))
        found = run(device, lambda step: [Block(make(step), 1)], 6, 1, 100)
        assert found.read(0)[2] > 0

    def test_grows_again_and_again(self, device):
        make = steps_of("float64", 100, lambda step: 2.0 ** (24 * step))
        run(device, lambda step: [Block(make(step), 1)], 9, 1, 100)

    @pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e30, 1e300])
    def test_of_any_size(self, device, scale):
        make = steps_of("float64", 100, lambda step: scale)
        found = run(device, lambda step: [Block(make(step), 1)], 4, 1, 100)
        assert (found.counts[0] == 4).all()

    def test_is_that_of_each_view(self, device):
        scales = [1e-20, 1.0, 1e20]
        makes = [
            steps_of("float32", 500, lambda step, scale=scale: scale, seed=i)
            for i, scale in enumerate(scales)
        ]
        found = run(device, lambda step: [Block(make(step), i) for i, make in enumerate(makes)], 3, 2, 500)
        assert np.diff([found.read(v)[2] for v in range(3)]).min() > 60


class TestBadValues:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
    def test_leave_their_group_out_of_the_step(self, device, dtype, bad):
        make = steps_of(dtype, 100)

        def blocks(step):
            x = make(step)
            if step == 1:
                x[[17, 99]] = bad
            return [Block(x, 1)]

        found = run(device, blocks, 3, 1, 100)
        assert found.read(0)[1].tolist() == [2 if g in (2, 12) else 3 for g in range(13)]

    def test_alone_set_no_scale(self, device):
        def blocks(step):
            x = np.full(16, np.inf if step == 0 else 3.0, np.float32)
            x[8:] = 0 if step == 0 else 2.0
            return [Block(x, 1)]

        found = run(device, blocks, 2, 1, 16)
        assert found.read(0)[1].tolist() == [1, 2]
        assert found.read(0)[2] == 2


def test_several_updates_take_one_value_each(device):
    """Two updates of one step with other views: each takes what it is given."""
    engine = SimulatedEngine(device, rows=2)
    blocks = [Block(np.full(20, 2.0, np.float32), 1), Block(np.full(30, 3.0, np.float32), 2, row=1)]
    both = [views_of_blocks([block]) for block in blocks]
    found = [Followed(device, described, 1) for described in both]
    for i, (described, own) in enumerate(zip(both, found, strict=True)):
        engine.update(engine.prepare(described, None, own.pieces), described, begin=i == 0)
    engine.wait()
    for own, described in zip(found, both, strict=True):
        own.update(described)
        own.check(described, 1)
