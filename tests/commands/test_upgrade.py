"""`make upgrade` brings a later version of the pipeline into a clone that has its own sources."""

import shutil
from pathlib import Path

import pytest
from conftest import TREE

from commands.new_source.deployment import with_deployment
from commands.remove_example import PARTS, remove
from commands.repository import Repository
from commands.upgrade.__main__ import main
from commands.upgrade.changelog import new_entries
from flows.errors import ConfigurationError

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = "flows/sources/market.py"
PREFECT = "prefect.yaml"
LOCK = "".join(f"package-{letter}==1\n\n\n" for letter in "abcdef")
FIRST = {
    "flows/elt.py": "first\n\n\nlast\n",
    "flows/other.py": "other\n",
    "commands/example.txt": f"{SAMPLE}\ntests/example\n",
    SAMPLE: "market = 1\n",
    "tests/example/test_market.py": "one\n",
    "tests/example/test_own.py": "one\n",
    "requirements.in": "package-a\n",
    "requirements.txt": LOCK,
    "CHANGELOG.md": "# Changelog\n\n## Unreleased\n\n### Added\n- Old.\n",
}


class Clone(Repository):
    """A repository of a test's, in which it writes and commits."""

    def commit(self, files: dict[str, str | None]) -> None:
        """Commit files with these contents; None deletes one."""
        for name, text in files.items():
            file = self.root / name
            if text is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A change")

    def upgrade(self, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
        """The exit code, and what is said."""
        code = main([f"--root={self.root}", *options])
        return code, capsys.readouterr().out

    def text(self, name: str) -> str:
        return (self.root / name).read_text()

    def state(self) -> tuple[str, str]:
        """Its commit, and whatever differs from it or is not finished."""
        return self.git("rev-parse", "HEAD"), self.git("status")


@pytest.fixture(autouse=True)
def _who(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"):
        monkeypatch.setenv(variable, "x")
    for variable in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(variable, "x@example.com")


def repository(root: Path, *made: str) -> Clone:
    root.mkdir(exist_ok=True)
    clone = Clone(root)
    clone.git(*(made or ("init", "--quiet", "--template=")))
    return clone


@pytest.fixture
def pipeline(tmp_path: Path) -> Clone:
    made = repository(tmp_path / "pipeline")
    made.commit({**FIRST, PREFECT: (TREE / PREFECT).read_text()})
    return made


@pytest.fixture
def owner(tmp_path: Path, pipeline: Clone) -> Clone:
    """A clone without the example, with a source of its own, and a hook that refuses commits."""
    cloned = ("clone", "--quiet", "--template=", "--origin=pipeline", str(pipeline.root), ".")
    clone = repository(tmp_path / "owner", *cloned)
    without = pipeline.text(PREFECT).replace(stanza(pipeline, "market"), "")
    clone.commit(
        {SAMPLE: None, "tests/example/test_market.py": None, "tests/example/test_own.py": None}
    )
    deployed = with_deployment(without, "shop")
    clone.commit({PREFECT: deployed, "flows/sources/shop.py": "shop = 1\n"})
    hook = clone.root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    return clone


def stanza(clone: Clone, name: str) -> str:
    """A deployment's lines."""
    [found] = [each for each in clone.text(PREFECT).split("\n\n") if f"- name: {name}\n" in each]
    return f"{found}\n\n"


def test_both_sides_changes_are_merged_and_the_removed_example_stays_removed(
    pipeline: Clone, owner: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also new files of the example, its deployments, and its list of a later version.

    A file that the owner has in the place of one is the owner's.
    """
    changed = stanza(pipeline, "market").replace("tags: [elt,", "tags: [elt, fast,")
    pipeline.commit(
        {
            "flows/elt.py": "first\n\n\nlast, changed\n",
            SAMPLE: "market = 2\n",
            "tests/example/test_market.py": "two\n",
            "tests/example/test_own.py": "two\n",
            "tests/example/test_new.py": "new\n",
            "tests/sample/test_newer.py": "newer\n",
            "commands/example.txt": f"{FIRST['commands/example.txt']}tests/sample\n",
            PREFECT: pipeline.text(PREFECT).replace(stanza(pipeline, "market"), changed),
            "CHANGELOG.md": FIRST["CHANGELOG.md"].replace(
                "- Old.", "- New,\n  of two lines.\n- Old."
            ),
        }
    )
    own = "tests/example/test_own.py"
    owner.commit({"flows/elt.py": "first, mine\n\n\nlast\n", own: "mine\n"})
    before = owner.text(PREFECT)
    code, said = owner.upgrade(capsys)
    assert code == 0
    assert owner.text("flows/elt.py") == "first, mine\n\n\nlast, changed\n"
    assert owner.text(PREFECT) == before
    assert not (owner.root / SAMPLE).exists()
    assert [path.name for path in owner.root.glob("tests/*/*")] == ["test_own.py"]
    assert owner.text(own) == "mine\n"
    assert owner.git("status", "--porcelain") == ""
    assert owner.git("rev-parse", "HEAD^2") == pipeline.git("rev-parse", "HEAD")
    assert "1 commit(s) from " in said
    assert "### Added\n- New,\n  of two lines.\n\n" in said
    assert "Old" not in said
    assert "What you removed of the example stays removed." in said
    assert said.endswith("Next:\n  make check\n  make deploy-plan\n")
    # The next one begins where this one ended.
    pipeline.commit({SAMPLE: "market = 3\n", "flows/other.py": "other 2\n"})
    assert owner.upgrade(capsys)[0] == 0
    assert owner.text("flows/other.py") == "other 2\n"
    assert not (owner.root / SAMPLE).exists()
    assert "nothing to upgrade" in owner.upgrade(capsys)[1]


def test_an_example_that_is_there_is_upgraded(
    pipeline: Clone, owner: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    """Except for the file of it that the owner deleted."""
    owner.git("reset", "--quiet", "--hard", "pipeline/HEAD")
    owner.commit({"tests/example/test_market.py": None})
    new = "tests/example/test_new.py"
    pipeline.commit({SAMPLE: "market = 2\n", "tests/example/test_market.py": "two\n", new: "new\n"})
    assert owner.upgrade(capsys)[0] == 0
    assert owner.text(SAMPLE) == "market = 2\n"
    assert owner.text(new) == "new\n"
    assert not (owner.root / "tests/example/test_market.py").exists()


def test_conflicts_are_listed_with_what_to_do_and_the_owner_may_go_back(
    pipeline: Clone, owner: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.commit({"flows/elt.py": "theirs\n", "flows/other.py": "theirs\n", "new.py": ""})
    owner.commit({"flows/elt.py": "mine\n", "flows/other.py": None})
    before = owner.state()
    code, said = owner.upgrade(capsys)
    assert code == 1
    assert "Conflicts in 2 file(s):\n" in said
    assert "  flows/elt.py: changed by both. Edit it, then `git add flows/elt.py`.\n" in said
    assert "  flows/other.py: deleted by you, changed by the pipeline. `git rm flows/other" in said
    assert said.endswith("Next:\n  git commit\n  make check\n  make deploy-plan\n")
    assert "<<<<<<< HEAD\nmine\n=======\ntheirs\n" in owner.text("flows/elt.py")
    code, said = owner.upgrade(capsys)
    assert (code, said.startswith("FAILED: Commit these changes first")) == (1, True)
    owner.git("merge", "--abort")
    assert owner.state() == before
    owner.upgrade(capsys)
    owner.git("rm", "--quiet", "flows/other.py")
    owner.commit({"flows/elt.py": "both\n"})
    assert owner.git("rev-parse", "HEAD^2") == pipeline.git("rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("changed", "locked"),
    [
        # The owner ran `make lock UPGRADE=1` only: a mixture of two locks would be neither.
        ({}, LOCK.replace("a==1", "a==3")),
        # Their own package stays, for `make lock` to begin with.
        ({"requirements.in": "package-a\nmine\n"}, f"{LOCK.replace('a==1', 'a==3')}mine==1\n"),
    ],
)
def test_locks_are_the_pipelines_and_own_packages_stay(
    pipeline: Clone,
    owner: Clone,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str | None],
    locked: str,
) -> None:
    mine = LOCK.replace("a==1", "a==2") + ("mine==1\n" if changed else "")
    if not changed:
        mine = mine.replace("f==1", "f==2")
    owner.commit({**changed, "requirements.txt": mine})
    pipeline.commit({"requirements.txt": LOCK.replace("a==1", "a==3")})
    code, said = owner.upgrade(capsys)
    assert (code, owner.text("requirements.txt")) == (0, locked)
    assert ("make lock && git commit -a    # you have changed requirements.in" in said) == bool(
        changed
    )


def test_a_tag_is_chosen_and_the_address_is_kept(
    pipeline: Clone,
    owner: Clone,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner.git("remote", "rename", "pipeline", "origin")
    code, said = owner.upgrade(capsys)
    assert (code, "Name the pipeline's repository once: make upgrade FROM=" in said) == (1, True)
    pipeline.commit({"flows/other.py": "two\n"})
    pipeline.git("tag", "--annotate", "--message", "two", "v2")
    pipeline.commit({"flows/other.py": "three\n"})
    monkeypatch.chdir(pipeline.root.parent)
    assert owner.upgrade(capsys, "--from=pipeline", "--to=v2")[0] == 0
    assert owner.text("flows/other.py") == "two\n"
    assert owner.git("remote", "get-url", "pipeline").strip() == str(pipeline.root)
    assert owner.git("log", "-1", "--format=%s").startswith("Upgrade the pipeline to v2 (")
    branch = pipeline.git("branch", "--show-current").strip()
    assert owner.upgrade(capsys, f"--to={branch}")[0] == 0
    assert owner.text("flows/other.py") == "three\n"
    assert owner.git("tag") == ""


def test_whatever_fails_leaves_the_tree_as_it_was(
    pipeline: Clone, owner: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.commit({"flows/other.py": "two\n", "new.py": ""})
    before = owner.state()
    for options in (("--to=v9",), ("--from=http://127.0.0.1:9/pipeline.git",)):
        code, said = owner.upgrade(capsys, *options)
        assert (code, said.splitlines()[1].startswith("FAILED: git fetch failed: ")) == (1, True)
    owner.git("config", "commit.gpgsign", "true")
    owner.git("config", "gpg.program", "false")
    code, said = owner.upgrade(capsys)
    assert (code, "FAILED: git commit failed: " in said) == (1, True)
    assert owner.state() == before
    owner.git("config", "status.showUntrackedFiles", "no")
    (owner.root / "new.py").write_text("mine\n")
    code, said = owner.upgrade(capsys)
    assert (code, "FAILED: git cherry-pick failed: " in said) == (1, True)
    assert (owner.state()[0], owner.text("new.py")) == (before[0], "mine\n")
    assert not (owner.root / ".git" / "MERGE_HEAD").exists()
    owner.git("config", "--unset", "status.showUntrackedFiles")
    assert "FAILED: Commit these changes first" in owner.upgrade(capsys)[1]


def test_a_copy_of_the_files_is_told_once_which_version_it_is(
    tmp_path: Path, pipeline: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    """As GitHub's "Use this template" makes it."""
    shutil.copytree(pipeline.root, tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))
    copy = repository(tmp_path / "copy")
    copy.git("add", "--all")
    copy.git("commit", "--quiet", "--message", "Copied")
    copy.commit({"flows/sources/shop.py": "shop = 1\n"})
    pipeline.commit({"flows/other.py": "two\n"})
    code, said = copy.upgrade(capsys, f"--from={pipeline.root}")
    assert (code, "shares no commit with" in said) == (1, True)
    [command] = [line.strip() for line in said.splitlines() if "git merge" in line]
    assert command.endswith(pipeline.git("rev-parse", "--short", "HEAD^").strip())
    copy.git(*command.replace('"', "").replace("Begin with the pipeline", "Begin").split()[1:])
    assert copy.upgrade(capsys, f"--from={pipeline.root}")[0] == 0
    assert copy.text("flows/other.py") == "two\n"
    assert copy.text("flows/sources/shop.py") == "shop = 1\n"


def test_a_clone_with_a_part_of_the_history_gets_the_rest_first(
    tmp_path: Path, pipeline: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.commit({"flows/other.py": "two\n"})
    made = ("clone", "--quiet", "--depth=1", pipeline.root.as_uri(), ".")
    owner = repository(tmp_path / "shallow", *made)
    owner.commit({"flows/sources/shop.py": "shop = 1\n"})
    pipeline.git("checkout", "--quiet", "-b", "other", "HEAD^")
    pipeline.commit({"flows/elt.py": "two\n"})
    code, said = owner.upgrade(capsys, "--from=origin", "--to=other")
    assert (code, "git fetch --unshallow" in said) == (1, True)
    owner.git("fetch", "--quiet", "--unshallow")
    assert owner.upgrade(capsys, "--from=origin", "--to=other")[0] == 0


def test_new_entries_are_shown_under_their_headings() -> None:
    """A version that got its number since then does not make its entries new."""
    before = "## Unreleased\n\n### Added\n- a\n  b\n\n### Fixed\n- c\n"
    after = "## 2\n\n### Added\n- n\n\n## 1\n\n### Added\n- a\n  b\n\n### Fixed\n- m\n- c\n"
    assert new_entries(before, after) == "## 2\n\n### Added\n- n\n\n## 1\n\n### Fixed\n- m"
    assert new_entries(after, after) == ""


def test_an_older_version_of_this_repository_is_upgraded_to_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an owner's source, model and deployment, and without the example."""
    here = Repository(REPOSITORY)
    try:
        history = ("log", "--diff-filter=A", "--format=%H", "--", "commands/remove_example.py")
        older = here.git(*history).split()[-1]
        is_shallow = here.git("rev-parse", "--is-shallow-repository").strip() == "true"
    except ConfigurationError:
        pytest.skip("this is no git repository")
    if is_shallow or older == here.git("rev-parse", "HEAD").strip():
        pytest.skip("this checkout has no older version: it is shallow, or a copy")
    clone = repository(tmp_path, "clone", "--quiet", "--shared", str(REPOSITORY), ".")
    clone.git("checkout", "--quiet", "-B", "main", older)
    name = "added_by_a_test"
    own = (f"flows/sources/{name}.py", f"dbt_project/models/staging/{name}/stg_{name}__a.sql")
    remove(clone.root)
    deployed = with_deployment(clone.text(PREFECT), name)
    clone.commit({PREFECT: deployed, **dict.fromkeys(own, "select 1\n")})
    _, said = clone.upgrade(capsys, f"--from={REPOSITORY}")
    assert "What you removed of the example stays removed." in said
    differs = set(clone.git("diff", "--name-only", "FETCH_HEAD").split())
    parts = {str(part) for part in PARTS}
    left = {path for path in differs if not is_in(path, parts)}
    assert left == {*own, PREFECT}
    assert not [part for part in parts if (clone.root / part).exists()]
    # A change beside the owner's deployment may be a conflict; nothing else can be.
    assert set(clone.git("diff", "--name-only", "--diff-filter=U").split()) <= {PREFECT}


def is_in(path: str, parts: set[str]) -> bool:
    return any(path == part or path.startswith(f"{part}/") for part in parts)
