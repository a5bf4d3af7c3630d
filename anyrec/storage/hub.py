"""Models on the Hugging Face Hub: published as their model directory, and downloaded into the cache of anyrec.

A downloaded model is not trusted more than any other: docs/security.md.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyrec.core.errors import Fault, InputError, ModelError
from anyrec.core.files import atomic_folder
from anyrec.core.hub_address import hub_name, is_on_hub
from anyrec.core.manifest import MANIFEST
from anyrec.core.vector_cache import cache_folder
from anyrec.storage.model_directory import save_model
from anyrec.storage.parts import ModelParts

NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Owner and name of a repository."""
DOWNLOADED = "model"
"""Folder of the model in the folder of its commit, which stands for the folder of a run."""
TOKEN = "Set HF_TOKEN to a token that may do this, or log in with `hf auth login`."


def model_folder(address: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """Return the folder of a model: a folder of this machine as it is, or the download of one of the Hub.

    Args:
        address: A folder, OWNER/NAME, or hf://OWNER/NAME with or without @REVISION. A folder that exists goes first.
        revision: Branch, tag or commit; by default the main branch. Only for models of the Hub.
        token: Token of the Hub; by default HF_TOKEN or the one that was saved by logging in.

    Raises:
        ModelError: If there is no such repository or revision, or it cannot be read.
    """
    text, named = str(address), hub_name(address)
    if not is_on_hub(text) and (Path(text).exists() or not NAME.fullmatch(text)):
        if revision is not None:
            what = "a folder of this machine has no revisions."
            raise ModelError(Fault(text, what, "Leave out revision, or give OWNER/NAME.", "option"))
        return Path(text)
    repository, _, tag = named.partition("@")
    if not NAME.fullmatch(repository) or (tag and revision and tag != revision):
        what = (
            "this is no model of the Hub."
            if not tag or not revision
            else f"it names two revisions, {tag} and {revision}."
        )
        raise ModelError(Fault(text, what, "Write hf://OWNER/NAME or hf://OWNER/NAME@REVISION.", "address"))
    return _downloaded(repository, revision or tag or None, token)


def push_to_hub(
    parts: ModelParts,
    repository: str,
    *,
    private: bool = True,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Publish a model: its directory becomes the content of a repository of the Hub, in one commit.

    A model holds the records and the histories of its users, so the repository is private unless `private` is false.

    Args:
        parts: The model.
        repository: OWNER/NAME. It is created if it does not exist.
        private: Whether only its owner may read it. A public repository is refused then.
        revision: Branch; by default the main branch. It is created if it does not exist.
        message: Message of the commit.
        token: Token of the Hub; by default HF_TOKEN or the one that was saved by logging in.

    Returns:
        The address of the commit.

    Raises:
        InputError: If the name is not OWNER/NAME, or the Hub does not answer or refuses.
    """
    from huggingface_hub import HfApi

    repository = hub_name(repository)
    if not NAME.fullmatch(repository):
        what = f"'{repository:.100}' is no name of a repository."
        raise InputError(Fault("repository", what, "Write OWNER/NAME.", "address"))
    api = HfApi(token=token, library_name="anyrec")
    with tempfile.TemporaryDirectory(prefix="anyrec-hub-") as folder, _hub_errors(repository, InputError):
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.repo_info(repository).private:
            what = "this repository is public, and a model holds the records and histories of its users."
            hint = "Name another one, or publish with private=False (--public)."
            raise InputError(Fault(repository, what, hint, "public repository"))
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        saved = save_model(parts, Path(folder) / DOWNLOADED)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=saved,
            revision=revision,
            commit_message=message or f"Publish {parts.model.config.name}",
            delete_patterns="*",
        )
    return str(done.commit_url)


def _downloaded(repository: str, revision: str | None, token: str | None) -> Path:
    """Return the folder of a model of the Hub, downloaded if it is not in the cache.

    The cache of the Hub has links to files elsewhere, which a model directory must not have. Its files are linked into
    the cache of anyrec, which takes no more space.
    """
    from huggingface_hub import snapshot_download

    with _hub_errors(f"hf://{repository}", ModelError):
        found = Path(snapshot_download(repository, revision=revision, token=token, library_name="anyrec"))
    place = cache_folder() / "hub" / repository.replace("/", "--") / found.name / DOWNLOADED
    if not (place / MANIFEST).is_file():
        files = [path.relative_to(found) for path in found.rglob("*") if path.is_file()]
        if Path(MANIFEST) not in files:
            what = f"this repository has no model of anyrec (no {MANIFEST} found)."
            raise ModelError(Fault(f"hf://{repository}", what, "Give a repository of `anyrec push`.", "no model"))
        with atomic_folder(place, MANIFEST) as new:
            for name in files:
                if not name.parts[0].startswith("."):  # such as .gitattributes, which the Hub adds
                    (new / name.parent).mkdir(parents=True, exist_ok=True)
                    _link((found / name).resolve(), new / name)
    return place


def _link(path: Path, place: Path) -> None:
    """Link a file, or copy it to another file system."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)


@contextmanager
def _hub_errors(where: str, kind: type[InputError]) -> Iterator[None]:
    """Raise errors of the Hub as `kind`."""
    from huggingface_hub import constants, errors

    def fault(what: str, hint: str, name: str) -> InputError:
        return kind(Fault(where, what, hint, name))

    try:
        yield
    except errors.GatedRepoError:
        raise fault("the owner must allow access to it.", f"Ask on its page. {TOKEN}", "credentials") from None
    except errors.RepositoryNotFoundError:
        what = "there is no such repository, or it is private."
        raise fault(what, f"Check the name. {TOKEN}", "no repository") from None
    except errors.RevisionNotFoundError:
        raise fault("it has no such revision.", "Give a branch, a tag or a commit.", "no revision") from None
    except errors.OfflineModeIsEnabled:
        raise fault("the Hub is switched off (HF_HUB_OFFLINE).", "Unset HF_HUB_OFFLINE.", "offline") from None
    except errors.LocalEntryNotFoundError:
        why = "is switched off (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "cannot be reached"
        what = f"it is not in the cache of this machine, and the Hub {why}."
        raise fault(what, "Download it once with access to the Hub.", "unreachable") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = TOKEN if status in (401, 403) else "Try again later."
        message = error.server_message or error.response.reason_phrase
        raise fault(f"the Hub refuses: {status} {message}.", hint, "refusal") from None
    except (errors.HFValidationError, errors.HTTPError, OSError) as error:
        raise fault(f"the Hub cannot be used: {error}.", "Check the connection.", "unreachable") from None
