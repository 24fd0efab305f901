"""torch.compile sees the same graphs with a monitor as without."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import batch, norm64, small_model  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402

dynamo = pytest.importorskip("torch._dynamo", reason="needs torch.compile")


def graphs(backend: str, monitored: str) -> tuple[int, int]:
    """Train a compiled model for some steps; return its graphs and graph breaks."""
    dynamo.reset()
    dynamo.utils.counters.clear()
    model = small_model()
    compiled = torch.compile(model, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(compiled, optimizer, when="optimizer" if monitored == "optimizer" else "call")
    if monitored == "no":
        monitor.detach()
    for step in range(4):
        optimizer.zero_grad()
        compiled(batch(step)).square().mean().backward()
        if monitored == "clip":
            assert float(monitor.clip_(1e3)) == pytest.approx(norm64(model), rel=1e-6)
        optimizer.step()
    assert monitor.stream.steps == (0 if monitored == "no" else 4)
    if monitored != "no":
        assert monitor.stream.names == [name for name, _ in model.named_parameters()]
    stats = dynamo.utils.counters["stats"]
    return stats["unique_graphs"], sum(dynamo.utils.counters["graph_break"].values())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.filterwarnings("ignore")
def test_torch_compiled_graphs_do_not_change(backend: str) -> None:
    without = graphs(backend, "no")
    assert without[0] > 0
    assert graphs(backend, "clip") == graphs(backend, "optimizer") == without
