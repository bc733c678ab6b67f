"""Keeps local commands on this machine: the environment of every process they start, and the settings of their clients.

A shell, a profile or a configuration file can name an endpoint, a proxy or credentials. For a local stack none of them
counts: its processes and clients speak to 127.0.0.1 only (docs/decisions/0015-loopback-only.md).
"""

import ipaddress
import os
import urllib.request
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from lambdalab.errors import AccessError

if TYPE_CHECKING:
    import boto3

LOCAL_REGION: Final = "us-east-1"
LOCAL_KEY: Final = "test"
"""Access key and secret of the emulator, which checks neither."""
NO_ENDPOINT: Final = "http://127.0.0.1:1"
"""Endpoint for a process that needs no service. Nothing listens there, so a call fails at once."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def variables(endpoint_url: str = NO_ENDPOINT, lambda_endpoint_url: str | None = None) -> dict[str, str]:
    """The environment of a process that speaks to one local stack and to nothing else.

    It is this process's own environment without the proxies and without every ``AWS_`` variable that is not ours.

    Args:
        endpoint_url: the emulator.
        lambda_endpoint_url: the plane; by default the emulator.

    Raises:
        AccessError: an endpoint is not on loopback.
    """
    kept = {name: value for name, value in _without_aws().items() if not name.lower().endswith("_proxy")}
    return kept | _aws(endpoint_url, lambda_endpoint_url or endpoint_url)


def build_variables() -> dict[str, str]:
    """The environment of a process that builds or installs: package registries by the user's proxy, but no AWS."""
    kept = _without_aws()
    past = [part.strip() for name in ("no_proxy", "NO_PROXY") for part in kept.get(name, "").split(",")]
    # "*" counts only alone: it is not a pattern in a list.
    direct = "*" if "*" in past else ",".join(dict.fromkeys([*filter(None, past), *_LOOPBACK]))
    return kept | {"no_proxy": direct, "NO_PROXY": direct} | _aws(NO_ENDPOINT, NO_ENDPOINT)


def own_variables() -> dict[str, str]:
    """This process's environment, unchanged: for a process that speaks to AWS."""
    return dict(os.environ)


def session() -> "boto3.Session":
    """A session with the emulator's credentials that reads no variable and no file.

    Its clients use no proxy. Each needs an explicit ``endpoint_url``.
    """
    # Imported here because the plane's guard and others that only start processes do not need boto3.
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES, ConstantProvider

    unread = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    nowhere = (None, None, os.devnull, None)
    core = botocore.session.Session(unread | {"config_file": nowhere, "credentials_file": nowhere})
    for section in ("s3", "proxies_config"):
        core.get_component("config_store").set_config_provider(section, ConstantProvider(None))
    core.set_default_client_config(Config(proxies={}))
    return boto3.Session(
        aws_access_key_id=LOCAL_KEY, aws_secret_access_key=LOCAL_KEY, region_name=LOCAL_REGION, botocore_session=core
    )


def open_url(request: urllib.request.Request | str, timeout_s: float | None) -> HTTPResponse:
    """Like ``urllib.request.urlopen``, but without proxies, without redirects, and for loopback only.

    Raises:
        AccessError: the URL is not on loopback.
        OSError: as ``urlopen`` does.
    """
    require_loopback(request if isinstance(request, str) else request.full_url)
    return cast(HTTPResponse, _opener.open(request, timeout=timeout_s))


def is_loopback(url: str) -> bool:
    """True if the host of a URL is this machine's loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_loopback(url: str) -> None:
    """Raises AccessError if a URL of a local stack leads elsewhere."""
    if urlsplit(url).scheme not in ("http", "https") or not is_loopback(url):
        raise AccessError(
            f"{url} is not on this machine's loopback, and a local stack is nowhere else",
            next_step="use --target aws for AWS, or `lambdalab up` for a local stack",
        )


def _without_aws() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def _aws(endpoint_url: str, lambda_endpoint_url: str) -> dict[str, str]:
    require_loopback(endpoint_url)
    require_loopback(lambda_endpoint_url)
    return {
        "AWS_ACCESS_KEY_ID": LOCAL_KEY,
        "AWS_SECRET_ACCESS_KEY": LOCAL_KEY,
        "AWS_REGION": LOCAL_REGION,
        "AWS_DEFAULT_REGION": LOCAL_REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ENDPOINT_URL_LAMBDA": lambda_endpoint_url,
    }


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
