"""boto3 clients for one target, and AWS's failures as the lab's own errors.

boto3 is imported where a client is made: that takes longer than commands that need none, such as ``status``.
"""

import contextlib
import logging
import os
import re
import urllib.request
from collections.abc import Iterator
from functools import cached_property
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from lambdalab import loopback
from lambdalab.errors import AccessError

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_sqs import SQSClient

LONGEST_INVOCATION_S: Final = 900
UNRESERVED_FLOOR: Final = 100
"""So many environments of an account always stay unreserved (Lambda, "Configuring reserved concurrency")."""
_SECRETS: Final = re.compile(r"(x-amz-security-token[=:]\s*)[^\s&',;\"]+|(\bCredential=)[^\s/,]+", re.IGNORECASE)
# At DEBUG, which Locust's --loglevel can ask for, botocore writes whole signed requests, session token and all.
logging.getLogger("botocore").setLevel(logging.INFO)

_DOMAINS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


def most_reservable(unreserved: int, held: int = 0) -> int:
    """How many environments functions may reserve together that hold so many now, of an account with so many left."""
    return max(0, unreserved + held - UNRESERVED_FLOOR)


def is_aws(endpoint_url: str) -> bool:
    """Whether an endpoint is AWS's own, where everything costs money."""
    return (urlsplit(endpoint_url).hostname or "").endswith(_DOMAINS)


class Aws:
    """Clients of one endpoint, made when first used.

    Args:
        endpoint_url: the emulator's, on loopback; None is AWS, or whatever else boto3 finds in the environment.
        lambda_endpoint_url: the plane's, which stands in for Lambda.
        region: on AWS, where neither the environment nor the profile names one.

    Raises:
        AccessError: an endpoint is not on loopback.
    """

    def __init__(
        self, *, endpoint_url: str | None = None, lambda_endpoint_url: str | None = None, region: str | None = None
    ) -> None:
        for url in filter(None, (endpoint_url, lambda_endpoint_url)):
            loopback.require_loopback(url)
        self._endpoint_url, self._region = endpoint_url, region
        self._lambda_endpoint_url = lambda_endpoint_url or endpoint_url

    @cached_property
    def session(self) -> "boto3.Session":
        """The emulator's fixed credentials, or the ordinary chain of environment, profile and role."""
        import boto3

        if self._endpoint_url is not None:
            return loopback.session()
        with access_errors("the AWS credentials"):
            # The AWS CLI and most SDKs read AWS_REGION; boto3 alone does not.
            session = boto3.Session(region_name=os.environ.get("AWS_REGION"))
            return session if session.region_name is not None else boto3.Session(region_name=self._region)

    def open(self, url: str, *, timeout_s: float) -> HTTPResponse:
        """Opens a link that a service gave, such as that of a function's code.

        Raises:
            AccessError: the link of a local stack is not on loopback.
            OSError: it cannot be opened.
        """
        if self._endpoint_url is not None:
            return loopback.open_url(url, timeout_s)
        return cast(HTTPResponse, urllib.request.urlopen(url, timeout=timeout_s))  # noqa: S310 - AWS's own link

    def variables(self) -> dict[str, str]:
        """The environment of a process that speaks to the same endpoints."""
        if self._endpoint_url is None:
            return loopback.own_variables()
        return loopback.variables(self._endpoint_url, self._lambda_endpoint_url)

    @cached_property
    def apigateway(self) -> Any:
        """REST APIs."""
        return self._client("apigateway")

    @cached_property
    def apigatewayv2(self) -> Any:
        """HTTP and WebSocket APIs."""
        return self._client("apigatewayv2")

    @cached_property
    def cloudformation(self) -> "CloudFormationClient":
        return cast("CloudFormationClient", self._client("cloudformation"))

    @cached_property
    def cloudwatch(self) -> Any:
        return self._client("cloudwatch")

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        return cast("DynamoDBClient", self._client("dynamodb"))

    @cached_property
    def events(self) -> Any:
        """EventBridge."""
        return self._client("events")

    @cached_property
    def lambda_(self) -> "LambdaClient":
        return cast("LambdaClient", self._client("lambda", self._lambda_endpoint_url))

    def lambda_callers(self, callers: int, timeout_s: float) -> "LambdaClient":
        """For Invoke alone, by so many at once: waits so long for an answer, and never sends an invocation twice."""
        config = _config(
            read_timeout=timeout_s,
            attempts=1,
            max_pool_connections=callers,
            tcp_keepalive=True,  # what lies between may drop a connection on which nothing is said for minutes
        )
        return cast("LambdaClient", self._client("lambda", self._lambda_endpoint_url, config))

    @cached_property
    def lambda_invoke(self) -> "LambdaClient":
        """For Invoke alone: waits as long as a function may run, and never sends an invocation twice."""
        config = _config(read_timeout=LONGEST_INVOCATION_S + 10, attempts=1)
        return cast("LambdaClient", self._client("lambda", self._lambda_endpoint_url, config))

    @cached_property
    def logs(self) -> "CloudWatchLogsClient":
        return cast("CloudWatchLogsClient", self._client("logs"))

    @cached_property
    def pricing(self) -> Any:
        """The price list; its endpoint for all regions is in us-east-1."""
        return self._client("pricing", region="us-east-1")

    @cached_property
    def s3(self) -> Any:
        return self._client("s3")

    @cached_property
    def scheduler(self) -> Any:
        """EventBridge Scheduler."""
        return self._client("scheduler")

    @cached_property
    def service_quotas(self) -> Any:
        return self._client("service-quotas")

    @cached_property
    def sns(self) -> Any:
        return self._client("sns")

    @cached_property
    def sqs(self) -> "SQSClient":
        return cast("SQSClient", self._client("sqs"))

    @cached_property
    def sqs_once(self) -> "SQSClient":
        """Never sends a request twice: what SQS took, and whose answer was lost, would be there twice."""
        return cast("SQSClient", self._client("sqs", config=_config(attempts=1)))

    @cached_property
    def tagging(self) -> Any:
        """Resource Groups Tagging API."""
        return self._client("resourcegroupstaggingapi")

    @cached_property
    def sts(self) -> Any:
        return self._client("sts")

    def _client(
        self, service: str, endpoint_url: str | None = None, config: "Config | None" = None, region: str | None = None
    ) -> object:
        with access_errors(f"the {service} endpoint"):
            url = endpoint_url or self._endpoint_url
            return self.session.client(  # type: ignore[call-overload]
                service, region_name=region, endpoint_url=url, config=config or _config()
            )


def _config(*, attempts: int = 4, **changes: Any) -> "Config":
    from botocore.config import Config

    retries: Any = {"mode": "standard", "total_max_attempts": attempts}
    return Config(**({"connect_timeout": 5, "max_pool_connections": 32} | changes), retries=retries)


def without_secrets(text: str) -> str:
    """A refusal as it may be shown and kept: AWS repeats a request whose signature is wrong, session token and all."""
    return _SECRETS.sub(lambda found: f"{found[1] or found[2]}...", text)


@contextlib.contextmanager
def access_errors(what: str) -> Iterator[None]:
    """Turns boto3's exceptions into one sentence; ``what`` names what was being asked for."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise AccessError(
            f"no AWS credentials were found for {what}",
            next_step="set AWS_PROFILE or AWS_ACCESS_KEY_ID, or measure locally with --target local",
        ) from error
    except exceptions.NoRegionError as error:
        raise AccessError(
            f"no AWS region is set for {what}", next_step="set AWS_REGION, for example us-east-1"
        ) from error
    except exceptions.ProfileNotFound as error:
        raise AccessError(str(error), next_step="see `aws configure list-profiles`") from error
    except exceptions.EndpointConnectionError as error:
        url = error.kwargs.get("endpoint_url", "the endpoint")
        raise AccessError(
            f"{url} does not answer for {what}",
            next_step="check the network and AWS_ENDPOINT_URL, or the local stack with `lambdalab status`",
        ) from error
    except exceptions.ClientError as error:
        detail = error.response.get("Error", {})
        said = without_secrets(f"{detail.get('Code')}: {detail.get('Message')}")
        raise AccessError(
            f"{error.operation_name} on {what} was refused: {said}",
            next_step="check that this identity has the permission and that the resource exists",
        ) from error
    except ResponseParserError:  # it repeats what came, which may repeat what was asked
        raise AccessError(
            f"what came back for {what} is no answer of AWS",
            next_step="check AWS_ENDPOINT_URL, and what stands between, such as a proxy",
        ) from None
    except exceptions.BotoCoreError as error:
        raise AccessError(f"{what} cannot be reached: {error}", next_step="check the AWS settings") from error
    except RuntimeError as error:  # botocore's, of credentials that have ended and cannot be renewed
        if "still expired" not in str(error):
            raise
        raise AccessError(f"the AWS credentials for {what} have expired", next_step="sign in again") from error
