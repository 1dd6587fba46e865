"""The versions that an upgrade is about: the clone's, the pipeline's, and their common one."""

from dataclasses import dataclass
from pathlib import Path

from commands.repository import Repository
from flows.errors import ConfigurationError

REMOTE = "pipeline"
UNKNOWN = """Name the pipeline's repository once: make upgrade FROM=<its URL or path>. git keeps \
it as the remote `pipeline`. If you cloned the pipeline itself, that is FROM=origin."""
SHALLOW = """This clone has only a part of its history, without a commit that it shares with \
{address}. Get the rest, then run this again:
  git fetch --unshallow"""
UNRELATED = """This repository shares no commit with {address}, as if its files were copied and \
not cloned. {found} Tell git once what the copy was made from, then run this again; \
the command changes no file:
  git merge -s ours --allow-unrelated-histories -m "Begin with the pipeline" {commit}"""
FOUND = "Your first commit has the files of {commit}."
NOT_FOUND = "`git log FETCH_HEAD` lists the pipeline's commits; <commit> is the one you copied."


@dataclass(frozen=True)
class Versions:
    """Commits, by their hashes.

    Attributes:
        base: the newest commit of the pipeline that the clone has.
        theirs: the commit of the pipeline to upgrade to.
    """

    base: str
    theirs: str

    @property
    def is_newer(self) -> bool:
        """Whether there is anything to upgrade to."""
        return self.base != self.theirs


def address(repository: Repository, given: str) -> str:
    """The remote, URL or absolute path to fetch from.

    Raises:
        ConfigurationError: when none is given and there is no remote `pipeline`.
    """
    remotes = repository.git("remote").split()
    if not given and REMOTE not in remotes:
        raise ConfigurationError(UNKNOWN)
    is_path = given and given not in remotes and Path(given).exists()
    return str(Path(given).resolve()) if is_path else given or REMOTE


def fetch(repository: Repository, address: str, to: str) -> Versions:
    """Fetch a tag or branch, by default the main one; makes no tag or branch here.

    Raises:
        ConfigurationError: when it can't be fetched, or shares no commit with the clone.
    """
    repository.git("fetch", "--quiet", "--", address, to or "HEAD")
    theirs = repository.git("rev-parse", "--verify", "FETCH_HEAD^{commit}").strip()
    shared = repository.attempt("merge-base", "HEAD", theirs).stdout.strip()
    if not shared:
        raise ConfigurationError(_no_base(repository, address, theirs))
    return Versions(shared, theirs)


def remember(repository: Repository, address: str) -> None:
    """Keep the address as the remote `pipeline`, unless there is one."""
    remotes = repository.git("remote").split()
    if REMOTE not in remotes:
        is_name = address in remotes
        url = repository.git("remote", "get-url", address).strip() if is_name else address
        repository.git("remote", "add", REMOTE, url)


def between(repository: Repository, versions: Versions) -> str:
    """How much the clone lacks, and how to list it."""
    commits = f"{versions.base[:10]}..{versions.theirs[:10]}"
    count = repository.git("rev-list", "--count", commits).strip()
    since, until = (
        repository.git("log", "-1", "--format=%cs", commit).strip()
        for commit in (versions.base, versions.theirs)
    )
    return f"{count} commit(s) from {since} to {until}: `git log {commits}` lists them."


def _no_base(repository: Repository, address: str, theirs: str) -> str:
    if repository.git("rev-parse", "--is-shallow-repository").strip() == "true":
        return SHALLOW.format(address=address)
    roots = repository.git("log", "--max-parents=0", "--format=%T", "HEAD").split()
    lines = repository.git("log", "--format=%T %h", theirs).splitlines()
    commit = next((line.split()[1] for line in lines if line.split()[0] in roots), None)
    found = FOUND.format(commit=commit) if commit else NOT_FOUND
    return UNRELATED.format(address=address, found=found, commit=commit or "<commit>")
