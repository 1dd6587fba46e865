"""Makes a tree of the pipeline and the example alone, whatever their owner has added."""

from pathlib import Path

from commands.remove_example import PARTS, SOURCES
from tests.project.tree import REPOSITORY, copy, copy_pipeline


def make_example(root: Path) -> Path:
    """Write the pipeline and the example to a folder."""
    copy_pipeline(root, deployed=SOURCES)
    for part in PARTS:
        copy(REPOSITORY / part, root / part)
    return root
