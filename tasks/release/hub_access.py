"""What publishing to the Hub needs before a byte is sent: a token, a name, the right to write there.

The publisher (`hub.py`) and the check before a run (`tasks.preflight`) ask the same functions. The token
comes from HF_TOKEN alone and is never written or logged.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tasks.errors import MalgilError, PublishError, explain_os_error

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WRITERS = ("admin", "write", "contributor")  # roles in an organisation that may make repositories


def hub_token() -> str:
    """The token of HF_TOKEN. Raises PublishError: it is not set."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise PublishError(
            "HF_TOKEN is not set",
            "publishing to the Hub needs a token with write access",
            "export HF_TOKEN=..., or set publish.target: folder in params.yaml",
        )
    return token


def api_with(token: str) -> "HfApi":
    """The client of HF_ENDPOINT (the public Hub by default)."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)


def repository_name(namespace: str, name: str) -> str:
    """`namespace/name`. Raises PublishError: the Hub has no such names."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    repository = f"{namespace}/{name}"
    try:
        validate_repo_id(repository)
        if "/" in namespace or name.endswith(".git"):
            raise HFValidationError("one namespace, one name, and no .git at its end")
    except HFValidationError as error:
        raise PublishError(
            f"{repository!r} is no name of a repository on the Hub ({str(error).splitlines()[0][:200]})",
            "a namespace and a name of at most 96 letters, digits, - _ and ., without -- and .. in them",
            "correct publish.namespace, publish.asr_repo or publish.llm_repo",
        ) from error
    return repository


def require_rights(repository: str) -> str:
    """The name of the account whose token may write `repository`, by asking the Hub; nothing is changed.

    Raises:
        PublishError: no token, an unknown one, one without write access, another's namespace, or a Hub that
            cannot be reached.
    """
    token = hub_token()
    with explained(repository):
        account: dict[str, Any] = api_with(token).whoami()
    if not may_write(account, repository.partition("/")[0]):
        rule, next_step = REFUSALS[403]
        raise PublishError(
            f"the token of {account.get('name')!r} ({_role(account)}) cannot write {repository}",
            rule,
            next_step,
        )
    return str(account.get("name"))


def may_write(account: Mapping[str, Any], namespace: str) -> bool:
    """Whether an account, as the Hub's whoami tells it, may write a repository of a namespace."""
    own = account.get("name") == namespace
    roles = {str(org.get("name")): org.get("roleInOrg") for org in account.get("orgs") or ()}
    if not own and (namespace not in roles or roles[namespace] not in (None, *WRITERS)):
        return False
    token = (account.get("auth") or {}).get("accessToken") or {}
    if token.get("role") != "fineGrained":
        return token.get("role") != "read"
    scopes = (token.get("fineGrained") or {}).get("scoped") or ()
    return any(
        str((scope.get("entity") or {}).get("name", "")).partition("/")[0] == namespace
        and "repo.write" in (scope.get("permissions") or ())
        for scope in scopes
    )


def _role(account: Mapping[str, Any]) -> str:
    return f"role {((account.get('auth') or {}).get('accessToken') or {}).get('role', 'unknown')}"


@contextmanager
def explained(repository: str) -> Iterator[None]:
    """Turns the Hub's and the network's errors into one that says what to do.

    Raises:
        PublishError: with the HTTP status and what it means here; never with the token.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except MalgilError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise _refused(repository, status, error.server_message or "") from error
    except (httpx2.TransportError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise PublishError(
            f"the Hub cannot be reached for {repository} ({type(error).__name__})",
            "publishing needs the network; nothing half-published is visible",
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE and start the same command again",
        ) from error
    except OSError as error:
        raise explain_os_error(error) from error
    except ValueError as error:
        raise PublishError(
            f"the Hub did not accept {repository}: {str(error).splitlines()[0]}",
            "the card's metadata, the name and every file must be valid",
            "correct publish.* in params.yaml or tasks/release/templates and start again",
        ) from error


REFUSALS = {
    401: (
        "the token in HF_TOKEN is not known to the Hub",
        "make a new token with write access and export HF_TOKEN",
    ),
    403: (
        "the token may not write there",
        "give the token write access to the namespace, or correct publish.namespace",
    ),
    404: (
        "it does not exist, or the token may not see it",
        "correct publish.namespace and the token's access",
    ),
    409: (
        "the name is taken or something else is there",
        "correct publish.asr_repo or publish.llm_repo, or look at it",
    ),
    412: ("somebody else committed at the same moment", "start the same command again"),
    413: ("a file is too large", "ship fewer or smaller quantisation types (quantise_llm.types)"),
    429: ("too many requests", "wait some minutes and start the same command again"),
}


def _refused(repository: str, status: int, message: str) -> PublishError:
    hub_trouble = (
        "the Hub has trouble of its own",
        "start the same command again later; it goes on where it was",
    )
    unexpected = (
        "an answer that is not expected here",
        "look at the repository on the Hub, then start again",
    )
    rule, next_step = REFUSALS.get(status, hub_trouble if status >= 500 else unexpected)
    said = f": {message.splitlines()[0]}" if message else ""
    return PublishError(f"the Hub answered {status} for {repository}{said}", rule, next_step)
