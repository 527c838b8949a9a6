"""One table from what the hub's client raises to sentences that name the ways on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from packager import catalog
from packager.errors import PackError, unreachable, usage
from packager.names import did_you_mean

WAYS_ON = (
    "Give a folder that you have with --weights PATH, or build with random weights with "
    "--weights dummy."
)


@contextmanager
def hub_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    """Raise PackError (exit code 5, or 2 for a malformed name) in place of the client's own
    exceptions."""
    try:
        yield
    except HFValidationError:
        raise usage(
            f"{repo_id!r} is not a valid repository name.",
            "Write OWNER/NAME, for example Qwen/Qwen3-0.6B.",
        ) from None
    except (
        HfHubHTTPError,
        httpx.HTTPError,
        OfflineModeIsEnabled,
        LocalEntryNotFoundError,
    ) as error:
        raise _sentence(error, repo_id, revision) from error


def _sentence(error: Exception, repo_id: str, revision: str | None) -> PackError:
    host = constants.ENDPOINT
    page = f"{host}/{repo_id}"
    if isinstance(error, OfflineModeIsEnabled):
        return unreachable(
            "HF_HUB_OFFLINE is set, so the hub is not asked.", f"Unset it. {WAYS_ON}"
        )
    if isinstance(error, LocalEntryNotFoundError):
        which = f" at revision {revision}" if revision else ""
        return unreachable(
            f"{repo_id}{which} is not in the hub cache {constants.HF_HUB_CACHE}.",
            f"Build once without --offline. {WAYS_ON}",
        )
    if isinstance(error, GatedRepoError):
        return unreachable(
            f"{repo_id} is gated, and this account has no access.",
            f"Ask for access on {page}, then `hf auth login`. {WAYS_ON}",
        )
    if isinstance(error, RevisionNotFoundError):
        return unreachable(
            f"{repo_id} has no revision {revision!r}.", f"Look at {page}/commits/main. {WAYS_ON}"
        )
    if isinstance(error, RepositoryNotFoundError):
        similar = did_you_mean(repo_id, [variant.repo_id for variant in catalog.load()])
        return unreachable(
            f"{host} has no repository {repo_id}, or it is private.{similar}",
            f"Check the name, or log in with `hf auth login`. {WAYS_ON}",
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return unreachable(
            f"{error.response.request.url} is no longer there.",
            f"Try again with another --revision. {WAYS_ON}",
        )
    if isinstance(error, HfHubHTTPError):
        return _status(error.response.status_code, host, repo_id)
    return _transport(error, host)


def _status(code: int, host: str, repo_id: str) -> PackError:
    if code == 401:
        return unreachable(
            f"{host} does not accept the access token (401).",
            f"Log in again with `hf auth login`. {WAYS_ON}",
        )
    if code == 403:
        return unreachable(
            f"{host} does not let this account read {repo_id} (403).",
            f"Check the rights of the access token. {WAYS_ON}",
        )
    if code == 429:
        return unreachable(
            f"{host} limits the number of requests (429).",
            f"Wait a few minutes, or log in with `hf auth login`. {WAYS_ON}",
        )
    return unreachable(
        f"{host} failed to answer for {repo_id} (status {code}).", f"Try again later. {WAYS_ON}"
    )


def _transport(error: Exception, host: str) -> PackError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return unreachable(
            f"The certificate of {host} is not trusted here.",
            f"Set SSL_CERT_FILE to your organisation's. {WAYS_ON}",
        )
    if isinstance(error, httpx.ProxyError):
        return unreachable(
            f"The proxy on the way to {host} refused: {error}.", f"Check HTTPS_PROXY. {WAYS_ON}"
        )
    if isinstance(error, httpx.TimeoutException):
        return unreachable(
            f"{host} did not answer in time.", f"Run the same command again to continue. {WAYS_ON}"
        )
    if isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError)):
        return unreachable(
            f"The connection to {host} was cut off.",
            f"Run the same command again to continue. {WAYS_ON}",
        )
    why = str(error).rstrip(".")
    return unreachable(
        f"{host} cannot be reached: {why}.", f"Check the network and HF_ENDPOINT. {WAYS_ON}"
    )
