"""The git repository of a clone, through git itself."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flows.errors import ConfigurationError

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Repository:
    """Runs git in one working tree, without the owner's hooks."""

    root: Path

    def git(self, *arguments: str, given: str = "", index: Path | None = None) -> str:
        """What git prints; `given` is its input, `index` a file to use instead of its own.

        Raises:
            ConfigurationError: when git fails, with its own words.
        """
        done = self.attempt(*arguments, given=given, index=index)
        if done.returncode:
            raise failed(done)
        return done.stdout

    def attempt(self, *arguments: str, given: str = "", index: Path | None = None) -> Done:
        """The same, for a caller who looks at the exit code."""
        done = subprocess.run(
            ["git", "-c", f"core.hooksPath={os.devnull}", *arguments],  # noqa: S607 (git on PATH)
            cwd=self.root,
            input=_encoded(given),
            env={**os.environ, "GIT_INDEX_FILE": str(index)} if index else None,
            capture_output=True,
            check=False,
        )
        out, errors = _decoded(done.stdout), _decoded(done.stderr)
        return Done(arguments, done.returncode, out, errors)

    def check_committed(self) -> None:
        """Refuse to go on where git could not bring everything back.

        Raises:
            ConfigurationError: when something is not committed, or this is no repository.
        """
        if changed := self.git("status", "--porcelain"):
            raise ConfigurationError(
                f"Commit these changes first, so that git can bring anything back:\n{changed}"
            )


def failed(done: Done) -> ConfigurationError:
    """The error of a git command, in git's own words."""
    said = done.stderr.strip() or done.stdout.strip()
    return ConfigurationError(f"git {done.args[0]} failed: {said}")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decoded(output: bytes) -> str:
    """Text with any byte and line end as they are: files go through here, and their names."""
    return output.decode("utf-8", "surrogateescape")
