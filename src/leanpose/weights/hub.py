"""Weights on the Hugging Face hub: `hf://USER/NAME`, or `hf://USER/NAME@REVISION`, as a file of the local cache.

Only `model.safetensors` of a repository is read: no configuration, no code, no pickle. It is leanpose's own format,
with a card and checksums, so any change by the hub, a mirror or the cache is detected on loading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leanpose.errors import LeanposeError
from leanpose.files import describe_os_error

FILE = "model.safetensors"
_SCHEME = re.compile("hf:/{1,2}")  # a Path of the address has one slash
_ADDRESS = re.compile(r"(?P<repository>[^@/\s]+/[^@/\s]+)(@(?P<revision>\S+))?")
_MAX_NAMED = 5  # files of a repository without FILE


@dataclass(frozen=True)
class HubAddress:
    """A repository of the hub.

    Attributes:
        repository: `USER/NAME`.
        revision: a branch, a tag or a commit; None: the newest of the main branch.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Parse `USER/NAME` or `USER/NAME@REVISION`, optionally with `hf://`.

        Raises:
            LeanposeError: the text is no such address.
        """
        found = _ADDRESS.fullmatch(_SCHEME.sub("", text, count=1) if is_hub_address(text) else text)
        if found is None:
            raise LeanposeError(f"'{text}' is not a hub address: hf://USER/NAME or hf://USER/NAME@REVISION.")
        return cls(found["repository"], found["revision"])

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_hub_address(name: Path | str) -> bool:
    """Whether this is a hub address: it begins with `hf://`."""
    return _SCHEME.match(str(name)) is not None


def download(address: HubAddress, *, token: str | bool | None = None, cache_dir: Path | str | None = None) -> Path:
    """The file of a repository in the cache of huggingface_hub, downloaded if missing or outdated.

    Args:
        address: of the repository.
        token: of the account to read with; None: the one that `hf auth login` has stored or `HF_TOKEN` holds.
        cache_dir: instead of `HF_HUB_CACHE`.

    Raises:
        LeanposeError: the repository, its revision or the file is not there, may not be read, or cannot be reached.
    """
    # Imported here and below, since it takes as long as everything else that prints a list of weights.
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with one_sentence(address):
        try:
            return Path(
                hf_hub_download(
                    address.repository, FILE, revision=address.revision, token=token, cache_dir=cache_dir,
                    library_name="leanpose",
                )
            )  # fmt: skip
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            names = HfApi(token=token).list_repo_files(address.repository, revision=address.revision)
            more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
            holds = f"only {', '.join(names[:_MAX_NAMED])}{more}" if names else "nothing"
            raise LeanposeError(
                f"{address} has no {FILE} (it contains {holds}); leanpose opens no other files. Download a checkpoint "
                "and convert it with `leanpose convert`."
            ) from error


@contextmanager
def one_sentence(address: HubAddress) -> Iterator[None]:
    """Whatever huggingface_hub raises about a repository as one sentence.

    Raises:
        LeanposeError: instead of its errors and of those of the network.
    """
    from huggingface_hub import constants, errors

    # What the client raises without a network: requests' errors, which are OSError, or from version 1 on httpx's.
    client_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.HFValidationError as error:
        raise LeanposeError(f"'{address.repository}' cannot be a repository of the hub: {_in_a_line(error)}") from error
    except errors.GatedRepoError as error:
        raise LeanposeError(
            f"{address} is gated: accept its terms on "
            f"{constants.ENDPOINT}/{address.repository} and log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise LeanposeError(
            f"{constants.ENDPOINT} has no repository '{address.repository}', or hides it from this account; "
            "`hf auth login` logs in."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise LeanposeError(f"'{address.repository}' has no revision '{address.revision or 'main'}'.") from error
    except (client_error, OSError) as error:
        raise _unreached(address, error) from error
    # Of answers that it does not expect, such as that the hub refuses the metadata, and of its transfers (Xet).
    except (ValueError, RuntimeError) as error:
        raise LeanposeError(f"{constants.ENDPOINT} does not take {address}: {_in_a_line(error)}") from error


def _unreached(address: HubAddress, error: Exception) -> LeanposeError:
    """What kept the hub from answering, or what it answered."""
    from huggingface_hub import constants, errors

    where = ""
    if isinstance(error, errors.LocalEntryNotFoundError):
        where = f"{address} is not in the cache, and "
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if isinstance(error, errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return LeanposeError(
            f"{where}HF_HUB_OFFLINE forbids requests to {constants.ENDPOINT} about {address.repository}."
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return LeanposeError(
                f"{where}{constants.ENDPOINT} gives this account no permission for {address.repository} (status "
                f"{status}); `hf auth login` stores a token that has it."
            )
        return LeanposeError(f"{where}{constants.ENDPOINT} answers with status {status} about {address.repository}.")
    if isinstance(error, OSError) and error.errno is not None:  # of the disk; the client's errors have no number
        return describe_os_error(error.filename or constants.HF_HUB_CACHE, error)
    return LeanposeError(f"{where}{constants.ENDPOINT} cannot be reached: {_in_a_line(error)}")


def _in_a_line(error: BaseException) -> str:
    """An error's text, at most 300 characters, as the end of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text[:300]} …" if len(text) > 300 else text.rstrip(".") + "."
