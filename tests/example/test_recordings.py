"""The example's recorded answers, and the proof that `make prove` makes of them."""

from pathlib import Path

import pytest

from commands.prove.trials import STEPS
from tests.owner.checkout import REPOSITORY, run


@pytest.mark.long
def test_open_meteo_survives_faults_and_kills(tmp_path: Path) -> None:
    page = tmp_path / "certificate.md"
    words = ("--source=open_meteo", f"--home={tmp_path}", f"--certificate={page}")
    run(REPOSITORY, "python", "-m", "commands.prove", *words)
    text = page.read_text()
    assert "**Lost: 0 rows. Doubled: 0 rows.**" in text
    assert text.count("| killed at ") == len(STEPS) - 1  # it takes no step `flush`
