"""What README and the benchmark page say is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links or page != PAGES[0]
    for link in links:
        assert (page.parent / link).exists(), link
    assert not re.search(r"@[A-Z]+@|\bTBD\b", text)


def test_there_are_two_setup_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert [block.strip() for block in blocks] == [
        "pip install '.[demo]' && gradtail demo",
        "pip install '.[test]' && pytest",
    ]


def test_examples_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where they write
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = [
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "import numpy" in code
    ]
    assert len(examples) == 1
    exec(examples[0], {})
    assert "alpha" in capsys.readouterr().out
