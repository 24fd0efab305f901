"""CIFAR-10 in the forms in which it is passed on."""

import hashlib
import pickle

import numpy as np
import pytest
from published import FOLDER

pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from gradtail.experiments.cifar import find_cifar, read_cifar
from gradtail.experiments.datasets import load_images
from gradtail.experiments.networks import LeNet, fully_connected


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (24, 3, 32, 32)).astype(np.uint8), rng.integers(0, 10, 24).astype(np.uint8)


def binary(folder, x, y):
    rows = np.hstack([y[:, None], x.reshape(len(x), -1)])
    (folder / "data_batch_1.bin").write_bytes(rows[:10].tobytes())
    (folder / "data_batch_2.bin").write_bytes(rows[10:20].tobytes())
    (folder / "test_batch.bin").write_bytes(rows[20:].tobytes())


def pickled(folder, x, y):
    for name, part in (
        ("data_batch_1", slice(10)),
        ("data_batch_2", slice(10, 20)),
        ("test_batch", slice(20, 24)),
    ):
        content = {b"data": x[part].reshape(-1, 3072), b"labels": y[part].tolist(), b"batch_label": b"one"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def differences(folder, x, y):
    for name, part in (("cifar10_train_batch1", slice(20)), ("cifar10_test_batch", slice(20, 24))):
        red, green, blue = x[part].transpose(1, 0, 2, 3)
        planes = np.stack([green, red - green, blue - green])
        for axis in (2, 3):
            planes = np.diff(planes, axis=axis, prepend=np.uint8(0)).astype(np.uint8)
        np.savez(folder / f"{name}.npz", delta_u8=planes, labels=y[part])


@pytest.mark.parametrize("form", [binary, pickled, differences])
def test_every_form_holds_the_same(form, tmp_path, pictures):
    form(tmp_path, *pictures)
    files, test = find_cifar(tmp_path)
    for part, (x, y) in ((slice(20), read_cifar(files)), (slice(20, 24), read_cifar([test]))):
        assert (x == pictures[0][part]).all()
        assert (y == pictures[1][part]).all()
    images = load_images(tmp_path)
    assert (images.name, images.side, images.channels) == ("CIFAR-10", 32, 3)
    inputs = images.train[0].double()
    assert inputs.mean(dim=(0, 2, 3)).abs().max() < 1e-6
    assert (inputs.std(dim=(0, 2, 3), unbiased=False) - 1).abs().max() < 1e-6
    assert LeNet(32, channels=3)(images.test[0]).shape == (4, 10)
    linear = fully_connected(32, 8, channels=3, bias=False)
    assert linear(images.test[0]).shape == (4, 10)
    assert sum(p.numel() for p in linear.parameters()) == 3072 * 8 + 80


def test_a_pickle_cannot_call_functions(tmp_path, pictures):
    pickled(tmp_path, *pictures)

    class Evil:
        def __reduce__(self):
            return print, ("called",)

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2))
    with pytest.raises(ValueError, match=r"data: expected a pickle of arrays .*builtin.*print is none"):
        load_images(tmp_path)


def test_other_content_is_refused(tmp_path, pictures):
    binary(tmp_path, *pictures)
    (tmp_path / "data_batch_2.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match="data: expected records of 3073 bytes, got 5"):
        load_images(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": pictures[0]}))
    (tmp_path / "test_batch").write_bytes(b"")
    with pytest.raises(ValueError, match=r"data: expected data and labels, got \['data'\]"):
        read_cifar([tmp_path / "data_batch_1"])
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": pictures[0], b"labels": [1] * 24}))
    with pytest.raises(ValueError, match="data: expected uint8 rows of 3072 pixels"):
        read_cifar([tmp_path / "data_batch_1"])
    np.savez(tmp_path / "other.npz", x=pictures[0])
    with pytest.raises(ValueError, match="data: expected arrays delta_u8 and labels"):
        read_cifar([tmp_path / "other.npz"])


def test_the_original():
    folder = FOLDER / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"needs CIFAR-10 in {folder}")
    files, test = find_cifar(folder)
    sums = []
    for part in (files, [test]):
        x, y = read_cifar(part)
        sums.append(hashlib.md5(np.hstack([y[:, None], x.reshape(len(x), -1)]).tobytes()).hexdigest())
    assert sums == [
        "5dd7e06a14cb22eb9f671a540d1b7c25",
        "803d5f7f4d78ea53de84dbe85f74fb6d",
    ]  # of the .bin files
