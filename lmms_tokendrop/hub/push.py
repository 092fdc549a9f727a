"""Push an exported folder to the model hub: one commit, one tag, nothing twice. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils.sha import git_hash

from lmms_tokendrop.hub.card_stamp import check_stamp
from lmms_tokendrop.hub.folder import MANIFEST, exported_files
from lmms_tokendrop.hub.manifest import Manifest, sha256, verify
from lmms_tokendrop.hub.names import check_repository, check_tag

FREE_LICENSES = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "unlicense"}
)
"""Licences under which weights may be passed on without further conditions than naming them."""

KEPT = frozenset({".gitattributes"})
"""Files of the Hub that no folder has and that stay."""


class PushError(RuntimeError):
    """The Hub refused, or the push must not be."""


@dataclass(frozen=True)
class Plan:
    """The difference between a folder and a repository.

    Parameters
    ----------
    repo_id, tag
        Where to, and the name of this version there.
    head
        Commit that the difference was taken to; None if there's no repository.
    added, changed, removed
        Names and sizes in bytes.
    tagged
        Whether the tag is there already.
    """

    repo_id: str
    tag: str
    head: str | None
    added: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    tagged: bool = False

    @property
    def different(self) -> bool:
        """Whether any file differs."""
        return bool(self.added or self.changed or self.removed)


def plan(folder: Path, repo_id: str, *, tag: str | None = None, redistribute: bool = False) -> Plan:
    """Compare a folder with a repository, and refuse what must not be pushed. Changes nothing.

    Parameters
    ----------
    folder
        Made by `lmms_tokendrop.hub.export`.
    repo_id
        Repository, ``owner/name``.
    tag
        Default: ``v`` and the package's version.
    redistribute
        Push weights although their licence is not one of `FREE_LICENSES`.

    Returns
    -------
    Plan
        What a push would do.

    Raises
    ------
    ValueError
        If a name is wrong, if the folder was changed after the export, or if its card is missing or was made for
        another repository, version or export.
    PushError
        Without a self-check of weights, for weights that may not be passed on, if the repository holds something
        else, if the tag is taken by another version, or if the Hub refuses or does not answer.
    """
    check_repository(repo_id)
    manifest = verify(folder)
    tag = check_tag(f"v{manifest.package_version}" if tag is None else tag)
    if manifest.self_check != "weights":
        raise PushError(f"{folder} was not checked with weights (self-check: {manifest.self_check}); export it again")
    if manifest.form == "full" and manifest.license not in FREE_LICENSES and not redistribute:
        raise PushError(
            f"the licence of the weights is {manifest.license or 'unknown'}; push the config-only form, or pass "
            "--redistribute if the licence lets you pass the weights on"
        )
    check_stamp(folder, repo_id, tag)
    local = exported_files(folder)
    api = HfApi()
    try:
        info = api.model_info(repo_id, files_metadata=True)
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise _refused(error) from error
        return Plan(repo_id, tag, None, added={name: path.stat().st_size for name, path in local.items()})
    except HfHubHTTPError as error:
        raise _refused(error) from error
    except HTTPError as error:
        raise PushError(f"no answer from the Hub about {repo_id} ({error}); try again") from error
    remote = {sibling.rfilename: sibling for sibling in info.siblings or () if sibling.rfilename not in KEPT}
    if remote and MANIFEST not in remote:
        raise PushError(f"{repo_id} was not made by lmms-tokendrop; choose another name")
    found = Plan(
        repo_id,
        tag,
        info.sha,
        added={name: path.stat().st_size for name, path in local.items() if name not in remote},
        changed={
            name: path.stat().st_size for name, path in local.items() if name in remote and _differs(path, remote[name])
        },
        removed={name: sibling.size or 0 for name, sibling in remote.items() if name not in local},
        tagged=tag in tags,
    )
    if found.tagged and (found.different or tags[tag] != info.sha):
        raise PushError(f"{repo_id} has a tag {tag} for other files; name this version with --tag")
    return found


def push(folder: Path, found: Plan, *, private: bool = True) -> None:
    """Do what a plan says: create the repository, commit all differences at once, tag the commit.

    Files that reached the Hub before a connection broke are not sent again.

    Parameters
    ----------
    folder
        The folder that the plan was made for.
    found
        From `plan`.
    private
        Visibility of a new repository; that of an existing one stays.

    Raises
    ------
    ValueError
        If the folder has what no exported one has by now, such as a link.
    PushError
        If the Hub refuses, if the connection breaks, or if the repository changed since the plan was made.
    """
    local = exported_files(folder)
    api = HfApi()
    try:
        head = found.head
        if head is None:
            api.create_repo(found.repo_id, private=private, exist_ok=True)
            head = api.model_info(found.repo_id).sha
        if found.different:
            adds = [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=local[name])
                for name in (*found.added, *found.changed)
            ]
            deletes = [CommitOperationDelete(path_in_repo=name) for name in found.removed]
            version = Manifest.read(folder).package_version
            head = api.create_commit(
                found.repo_id,
                [*adds, *deletes],
                commit_message=f"{found.tag}, exported by lmms_tokendrop {version}",
                parent_commit=head,
            ).oid
        if not found.tagged:
            api.create_tag(found.repo_id, tag=found.tag, revision=head, exist_ok=True)
    except HfHubHTTPError as error:
        raise _refused(error) from error
    except (HTTPError, RuntimeError) as error:
        raise PushError(f"the push broke off ({error}); push again, what arrived is not sent twice") from error


def _differs(path: Path, remote: RepoSibling) -> bool:
    if remote.lfs is not None:
        return remote.lfs.sha256 != sha256(path)
    return remote.blob_id != git_hash(path.read_bytes())


def _refused(error: HfHubHTTPError) -> PushError:
    status = error.response.status_code
    reasons = {
        401: "not logged in, or the token may not do this; run hf auth login",
        403: "the token may not write there",
        409: "the repository is being changed by somebody else; look at it and push again",
        412: "the repository was changed since it was compared; push again",
    }
    return PushError(f"the Hub refused with {status}: {reasons.get(status, error.server_message or 'no reason given')}")
