"""Names of repositories and of versions that fit into commands, addresses and model arguments."""

from __future__ import annotations

import re

from huggingface_hub.utils import HFValidationError, validate_repo_id

from lmms_tokendrop.modeling.core.loading import COMMIT, REPOSITORY

TAG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,99}")


def check_repository(repo_id: str) -> str:
    """Return a repository's name, or raise a ValueError with the rule that it breaks."""
    if not repo_id.isascii() or not REPOSITORY.fullmatch(repo_id):
        raise ValueError(f"repository {repo_id!r}; allowed: owner/name, of letters, digits, '.', '_' and '-'")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"repository {repo_id!r}: {error}") from error
    return repo_id


def check_tag(tag: str) -> str:
    """Return a version's name, or raise a ValueError with the rule that it breaks."""
    if not TAG.fullmatch(tag) or tag.endswith((".", ".lock")):
        raise ValueError(
            f"tag {tag!r}; allowed: up to 100 letters, digits, '.', '_' and '-', the first one a letter or digit, "
            "no '..', and no '.' or '.lock' at the end"
        )
    if tag == "main" or COMMIT.fullmatch(tag):
        raise ValueError(f"tag {tag!r}; allowed: anything that is no branch and no commit")
    return tag
