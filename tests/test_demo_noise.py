"""What `gradtail demo` says of noise and clipping, against the gradients themselves."""

import contextlib
import io
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the demo trains with PyTorch")
pytest.importorskip("matplotlib", reason="the demo writes a report with pictures")
pytest.importorskip("rich", reason="the demo's live view is drawn with rich")

from test_demo import tiny  # noqa: E402

from gradtail.experiments.demo import Demo  # noqa: E402


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """A run of thirty steps: its report.json, the gradients before clipping, and what was printed."""
    seen, out = [], io.StringIO()
    keep = lambda step, model: seen.append(
        np.concatenate([p.grad.numpy().astype(np.float64).ravel() for p in model.parameters()])
    )
    demo = Demo(tiny(tmp_path_factory.mktemp("longer"), steps=30, sample=0))
    with contextlib.redirect_stdout(out):
        assert demo.run(on_gradients=keep) == 0
    return (
        json.loads((demo.out / "report.json").read_text()),
        np.array(seen),
        " ".join(out.getvalue().split()),
    )


def test_spectrum_is_that_of_the_gradients(longer):
    data, seen, said = longer
    found = data["spectrum"]
    explicit = np.linalg.svd(seen - seen.mean(axis=0), compute_uv=False)[:29] ** 2 / 29
    # a sketch into r buckets is off by about sqrt(2 / r) of an eigenvalue
    assert found["eigenvalues"][:5] == pytest.approx(explicit[:5], rel=5 * np.sqrt(2 / found["buckets"]))
    assert found["trace"] == pytest.approx(explicit.sum(), rel=0.05)
    mean_square = (np.linalg.norm(seen, axis=1) ** 2).mean()
    assert found["second_moment"]["trace"] == pytest.approx(mean_square, rel=1e-6)
    assert "Gradient noise: Over steps 0 to 29 the covariance has the participation ratio" in said


def test_clip_threshold_is_a_quantile_of_the_norms(longer):
    data, seen, said = longer
    norms, clip = np.linalg.norm(seen, axis=1), data["clipping"]
    used = norms[clip["first_step"] : clip["last_step"] + 1]
    assert clip["threshold"] == pytest.approx(np.quantile(used, 0.95, method="weibull"), rel=1e-6)
    share = clip["in_use"]
    assert share["rate"] == np.mean(norms[share["first_step"] : share["last_step"] + 1] > 1)
    assert "Clipping: A threshold of" in said
    assert "max_norm = 1.00 in use clips" in said
