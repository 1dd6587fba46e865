"""The website of docs/."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"


def test_every_page_is_on_the_site_and_no_link_is_broken(tmp_path: Path) -> None:
    """`--strict` fails for a link, an anchor or an entry of the menu that leads nowhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    pages = {page.stem for page in DOCS.glob("*.md")}
    assert len(pages) > 5
    assert pages <= {page.stem for page in tmp_path.glob("*.html")}
    menu = re.findall(r'href="([\w-]+)\.html" class="md-nav', (tmp_path / "index.html").read_text())
    assert set(menu) == pages
