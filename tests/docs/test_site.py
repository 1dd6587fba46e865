"""The website of docs/, as `make site` builds it."""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"


def test_every_page_is_on_the_site_and_no_link_is_broken(tmp_path: Path) -> None:
    """`--strict` fails for a link, an anchor or an entry of the menu that leads nowhere."""
    here = f"BIN={Path(sys.executable).parent}"
    command = run("make", "--no-print-directory", "--old-file=install-dev", "-n", "site", here)
    run("sh", "-c", f"{command.strip()} --site-dir '{tmp_path}'")
    pages = {page.stem for page in DOCS.glob("*.md")}
    assert len(pages) > 5
    assert pages <= {page.stem for page in tmp_path.glob("*.html")}
    menu = re.findall(r'href="([\w-]+)\.html" class="md-nav', (tmp_path / "index.html").read_text())
    assert set(menu) == pages


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
