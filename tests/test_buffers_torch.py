"""torch tensors in: the native list road and the Python road agree, and refuse alike."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import values
from producers import Delegate, Handmade

from gradtail import Summary, buffers, summarize


@pytest.fixture(params=["fast", "slow", "no exchange API"])
def road(request, torch, monkeypatch):
    """Take the native list road where there is one, or the Python road, or an older torch."""
    if request.param == "slow":
        monkeypatch.setattr(buffers, "core", None)
    elif request.param == "no exchange API" and hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__")
    return request.param


def _tensors(torch):
    g = torch.Generator().manual_seed(0)
    base = torch.randn(8, 6, 4, 3, generator=g)
    return [
        base, base.double(), base.half(), base.bfloat16(), base.transpose(0, 3),
        base.contiguous(memory_format=torch.channels_last), base[2:5], base[0, 0, 0], torch.empty(0),
        torch.empty(3, 0, 2), base[0:0, ::2], torch.tensor(3.0), base[:1, :1, :1, :1],
        torch.as_strided(base, (1, 3), (77, 1)), torch.nn.Parameter(base * 2), (base * 3).requires_grad_(),
        base.detach(), base.expand(1, 8, 6, 4, 3), base.flatten()[7:],
    ]  # fmt: skip


def test_torch_tensors_of_every_layout(torch, road):
    for t in _tensors(torch):
        views = buffers.views_of(t)
        assert views.table["size"] == t.numel()
        assert t.numel() == 0 or views.table["data"] == t.data_ptr()
        expected = t.detach().double().contiguous().flatten().numpy()
        got = summarize(t)
        values.assert_sums(got, expected)
        assert got.count == t.numel()


def test_torch_roads_give_the_same_table(torch, monkeypatch):
    tensors = _tensors(torch)
    fast = buffers.views_of(tensors, start=5)
    monkeypatch.setattr(buffers, "core", None)
    slow = buffers.views_of(tensors, start=5)
    for name in buffers.VIEW.names:
        if name == "data":  # of empty tensors nothing is read
            keep = slow.table["size"] > 0
            np.testing.assert_array_equal(fast.table[name][keep], slow.table[name][keep])
        else:
            np.testing.assert_array_equal(fast.table[name], slow.table[name], name)


def test_torch_list_takes_the_native_road(torch, core, monkeypatch):
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this torch has no DLPack C exchange API")
    monkeypatch.setattr(buffers, "_read", None)  # the Python road would fail
    assert len(buffers.views_of(_tensors(torch))) == len(_tensors(torch))


def test_torch_gradients_of_a_model(torch, backend):
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    model(torch.ones(2, 5)).square().sum().backward()
    named = {name: p.grad for name, p in model.named_parameters()}
    s = summarize(named, backend=backend)
    flat = torch.cat([g.flatten() for g in named.values()]).double().numpy()
    values.assert_sums(s, flat)
    assert summarize(list(named.values()), backend=backend) == s
    parameters = summarize(list(model.parameters()), backend=backend)
    assert parameters.count == flat.size
    assert all(p.requires_grad for p in model.parameters())


def test_torch_bfloat16_by_dlpack(torch, backend):
    t = torch.randn(100).bfloat16()
    assert summarize(Delegate(t), backend=backend) == summarize(t, backend=backend)
    assert buffers.views_of(Delegate(t)).table["data"] == t.data_ptr()


def test_torch_and_others_in_one_list(torch, backend):
    t = torch.ones(3)
    s = summarize([t, np.ones(2), Delegate(t)], backend=backend)
    assert (s.count, s.mean) == (8, 1)


def test_torch_subclasses_that_hold_their_values(torch, road):
    class Mine(torch.Tensor):
        pass

    assert summarize([torch.ones(4).as_subclass(Mine), torch.nn.Buffer(torch.ones(2))]).count == 6


def _freed(torch):
    t = torch.ones(1000)
    t.untyped_storage().resize_(0)
    return t


def _dtensor(torch):
    class DTensor(torch.Tensor):
        placements = ()

        def to_local(self):
            return self.as_subclass(torch.Tensor)

    return torch.ones(4).as_subclass(DTensor)


def _nested(torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


def _fake(torch):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        return torch.zeros(4)


def _csr(torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.eye(3).to_sparse_csr()


def _unaligned(torch):
    return torch.frombuffer(bytearray(41), dtype=torch.float32, offset=1)


DTYPE = "expected a dtype of float64, float32, float16 or bfloat16, got "
DENSE, DATA = "expected a dense array, got layout ", "expected an array with data, got "
PLAIN = "expected plain memory, got a lazily negated view"
HOLES = "expected dense memory (no holes, overlaps or reversed axes), got shape"
REFUSED = {
    "integer": (lambda t: t.arange(3), TypeError, DTYPE + "int64"),
    "bool": (lambda t: t.zeros(3, dtype=t.bool), TypeError, DTYPE + "bool"),
    "complex": (lambda t: t.zeros(3, dtype=t.complex64), TypeError, DTYPE + "complex64"),
    "fp8": (lambda t: t.zeros(3).to(t.float8_e4m3fn), TypeError, DTYPE + "float8_e4m3fn"),
    "fp8 e5m2": (lambda t: t.zeros(3).to(t.float8_e5m2), TypeError, DTYPE + "float8_e5m2"),
    "sparse": (lambda t: t.eye(3).to_sparse(), TypeError, DENSE + "torch.sparse_coo"),
    "csr": (_csr, TypeError, DENSE + "torch.sparse_csr"),
    "nested": (_nested, TypeError, DENSE + "nested"),
    "DTensor": (_dtensor, TypeError, "expected a plain tensor, got a DTensor; pass x.to_local()"),
    "fake": (_fake, TypeError, "expected a plain tensor, got a FakeTensor"),
    "meta": (lambda t: t.zeros(3, device="meta"), ValueError, DATA + "a meta tensor"),
    "freed": (_freed, ValueError, DATA + "1000 elements without memory"),
    "zero tensor": (lambda t: t._efficientzerotensor(4), ValueError, DATA),
    "negated": (lambda t: t._neg_view(t.ones(1)), ValueError, PLAIN),
    "imaginary part": (lambda t: t.ones(1, dtype=t.complex64).conj().imag, ValueError, PLAIN),
    "holes": (lambda t: t.ones(4, 4)[:, ::2], ValueError, HOLES),
    "real part": (lambda t: t.ones(4, dtype=t.complex64).real, ValueError, HOLES),
    "broadcast": (lambda t: t.ones(1).expand(5), ValueError, HOLES),
    "broadcast sum": (lambda t: t.ones(3, 1).expand(3, 4), ValueError, HOLES),
    "overlap": (lambda t: t.ones(9).unfold(0, 3, 1), ValueError, HOLES),
    "unaligned": (_unaligned, ValueError, "expected aligned memory"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_torch_refusals_change_nothing(torch, road, case):
    make, error, message = REFUSED[case]
    bad, good = make(torch), torch.ones(3)
    s = summarize(torch.tensor([1.0, float("nan")]))
    before = repr(s.state_dict())
    for x, name in (
        (bad, "x"), ([good, bad], "x[1]"), ([good] * 300 + [bad], "x[300]"), ({"a.w": bad}, "x['a.w']"),
    ):  # fmt: skip
        with pytest.raises(error) as caught:
            s.update(x)
        assert str(caught.value).startswith(f"{name}: {message}"), str(caught.value)
        assert repr(s.state_dict()) == before


def test_torch_dtensor_of_the_library_itself_is_refused(torch):
    distributed = pytest.importorskip("torch.distributed.tensor", reason="this torch has no DTensor")
    dist = torch.distributed
    if not dist.is_available() or dist.is_initialized():
        pytest.skip("needs torch.distributed, not yet in use")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
            t = distributed.distribute_tensor(torch.ones(4), mesh, [distributed.Shard(0)])
            for x, name in ((t, "x"), ([torch.ones(2), t], "x[1]")):
                with pytest.raises(TypeError) as caught:
                    summarize(x)
                start = f"{name}: expected a plain tensor, got a DTensor; pass x.to_local() "
                assert str(caught.value).startswith(start)
            assert summarize(t.to_local()).count == 4
        finally:
            dist.destroy_process_group()


def test_torch_tensors_inside_a_transform_are_refused(torch, road):
    def f(t):
        with pytest.raises(ValueError, match=r"^x: expected a tensor with memory of its own, got none"):
            summarize(t)
        return t

    torch.vmap(f)(torch.ones(3, 4))


def test_torch_with_a_foreign_device_is_refused(torch, road):
    with pytest.raises(ValueError, match=r"^x\[0\]: expected every array on one device, got cpu, cuda:0"):
        summarize([torch.ones(3), Handmade(4096, (3,), device=(2, 0))])


def test_torch_flush_denormal_changes_nothing(torch, core):
    data = [
        np.array([1e-310, -2e-310, 0.0]),
        values.make("float64", 70_001, "subnormal", 1),
        values.make("float32", 300_001, "subnormal", 2),
        values.make("bfloat16", 5000, "subnormal", 3),
        values.make("float16", 5000, "subnormal", 4),
        values.make("float32", 5000, "finite", 5),
        values.make("float64", 5000, "finite", 6),
    ]
    q = np.linspace(0, 1, 11)

    def facts(x):
        s = summarize(x, backend="native")
        state = [s.state_dict(), s.merge(s).state_dict()]
        # Answers that are subnormal doubles themselves are out of our hands.
        return [*state, s.quantile(q), s.mean, s.norm, s.histogram()] if s.max_abs > 1e-300 else state

    expected = [facts(x) for x in data]
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU does not flush subnormal numbers")
    try:
        got = [facts(x) for x in data]
    finally:
        torch.set_flush_denormal(False)
    for a, b in zip(got, expected, strict=True):
        assert repr(a) == repr(b)  # here, where subnormal numbers can be printed


def test_torch_empty_list_is_refused(road):
    with pytest.raises(ValueError, match=r"^x: expected at least one array, got an empty list$"):
        Summary().update([])
