"""The model and the text of `gradtail demo`."""

import pytest

torch = pytest.importorskip("torch", reason="the demo trains with PyTorch")

from gradtail.experiments.gpt import GPT, GPTConfig  # noqa: E402
from gradtail.experiments.text import load_text, read_stdlib, stdlib_files  # noqa: E402
from gradtail.experiments.training import Recipe, as_tensor, heldout_loss, windows  # noqa: E402

TINY = GPTConfig(layers=2, heads=2, width=16, context=12)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(TINY)


def tokens(batch, time):
    return torch.randint(256, (batch, time), generator=torch.Generator().manual_seed(1))


def test_logits_for_every_position(model):
    assert model(tokens(3, 7)).shape == (3, 7, 256)


def test_untrained_loss_is_that_of_a_uniform_guess(model):
    loss = model.loss(tokens(8, 13)).item()
    assert loss == pytest.approx(torch.log(torch.tensor(256.0)).item(), abs=0.1)


@pytest.mark.parametrize("changed", [1, 6, 11])
def test_a_later_token_changes_no_earlier_logit(model, changed):
    before = tokens(2, 12)
    after = before.clone()
    after[:, changed] = (after[:, changed] + 1) % 256
    with torch.no_grad():
        a, b = model(before), model(after)
    assert torch.equal(a[:, :changed], b[:, :changed])
    assert not torch.equal(a[:, changed:], b[:, changed:])


def test_tied_matrix_is_one_parameter(model):
    assert model.head.weight is model.tokens.weight
    names = [name for name, _ in model.named_parameters()]
    assert "tokens.weight" in names
    assert "head.weight" not in names
    model.loss(tokens(2, 13)).backward()
    # Bytes that never went in get gradient as outputs: the two uses meet in one gradient.
    assert (model.tokens.weight.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("config", [TINY, GPTConfig()])
def test_parameter_count(config):
    w = config.width
    per_block = 2 * w + 3 * w * w + w * w + 2 * 4 * w * w
    expected = config.vocabulary * w + config.context * w + config.layers * per_block + w
    assert GPT(config).parameter_count() == expected


def test_default_has_a_few_million_parameters():
    assert 2e6 < GPT(GPTConfig()).parameter_count() < 5e6


def test_initial_scale_is_that_of_gpt2():
    torch.manual_seed(0)
    model = GPT(GPTConfig(layers=2, width=64))
    block = model.blocks[0]
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.down.weight.std().item() == pytest.approx(0.02 / 2, rel=0.05)


def test_sample_continues_the_prompt_beyond_the_context(model):
    text = model.sample(b"def ", 20, seed=3)
    assert text.startswith(b"def ")
    assert len(text) == 24
    assert text == model.sample(b"def ", 20, seed=3)


def test_stdlib_text_is_the_same_every_time():
    first = read_stdlib(300_000)
    assert len(first) == 300_000
    assert first == read_stdlib(300_000)


def test_stdlib_files_leave_out_tests_and_installed_packages():
    files = stdlib_files()
    assert len(files) > 100
    assert any(path.name == "argparse.py" for path in files)
    for path in files:
        assert not {"test", "tests", "idle_test", "site-packages"} & set(path.parent.parts), path
        assert not path.name.startswith("_sysconfigdata")


def test_stdlib_folder_is_read_in_order_without_what_cannot_be_read(tmp_path):
    (tmp_path / "b.py").write_bytes(b"bb")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "z.py").write_bytes(b"az")
    (tmp_path / "c.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "t.py").write_bytes(b"no")
    (tmp_path / "note.txt").write_bytes(b"no")
    assert read_stdlib(folder=tmp_path) == b"azbb"
    assert read_stdlib(3, folder=tmp_path) == b"azb"


def test_users_text_is_split_and_named(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(bytes(range(200)) * 5)
    text = load_text(path, least=100)
    assert text.train + text.heldout == path.read_bytes()
    assert len(text.heldout) == 100
    assert text.source == "mine.txt"


def test_refuses_a_text_that_is_too_short(tmp_path):
    path = tmp_path / "short.txt"
    path.write_bytes(b"x" * 99)
    with pytest.raises(ValueError, match=r"^text: expected at least 100 bytes, got 99 from short\.txt$"):
        load_text(path, least=10)


def test_refuses_a_text_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"^text: expected a file that can be read, got .*nothing\.txt"):
        load_text(tmp_path / "nothing.txt")
    with pytest.raises(ValueError, match=r"^text: expected a file that can be read"):
        load_text(tmp_path)


def test_windows_are_pieces_of_the_text():
    data = as_tensor(bytes(range(100)))
    cut = windows(data, torch.tensor([0, 95]), 5, torch.device("cpu"))
    assert cut.tolist() == [[0, 1, 2, 3, 4], [95, 96, 97, 98, 99]]


def test_heldout_loss_is_the_mean_over_all_windows(model):
    data = as_tensor(bytes(range(250)))
    starts = [0, 237]
    by_hand = sum(model.loss(data[None, s : s + 13].long()).item() for s in starts) / 2
    assert heldout_loss(model, data, most=2) == pytest.approx(by_hand, rel=1e-5)
    assert heldout_loss(model, data[:13]) > 0


def test_learning_rate_rises_then_falls():
    recipe = Recipe(steps=100, warmup=10, learning_rate=1.0)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert Recipe(steps=1).rate(0) > 0
