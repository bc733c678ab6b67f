"""Deploys what ``sam build`` made to an emulator that is new, by CloudFormation, as ``sam deploy`` does.

sam itself takes longer to start, to make a bucket of its own and to ask than the emulator takes to deploy
(docs/decisions/0023-deployed-without-sam.md).
"""

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lambdalab import loopback
from lambdalab.aws.clients import Aws
from lambdalab.build.deployment import CODE
from lambdalab.errors import ToolError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

_BUCKET: Final = "lambdalab-packages"
_POLL_S: Final = 0.1
_DEPLOYED_S: Final = 300.0


def create_stack(
    endpoint_url: str, name: str, template: Path, parameters: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    """Creates a stack and waits until it is complete.

    Args:
        endpoint_url: the emulator's.
        name: the stack's.
        template: what ``deployment.build`` packed: JSON, with zip files beside it.
        parameters: values of parameters; what the template does not have is left out, as by sam.
        tags: the stack's.

    Raises:
        ToolError: the template is refused, or a resource cannot be made; the message says which and why.
        OSError: the emulator does not answer.
    """
    from botocore.exceptions import ClientError

    _put(f"{endpoint_url}/{_BUCKET}")
    body = json.loads(template.read_bytes())
    for resource in body.get("Resources", {}).values():
        code = CODE.get(resource.get("Type"), "")
        if isinstance(archive := resource.get("Properties", {}).get(code), str):
            _put(f"{endpoint_url}/{_BUCKET}/{archive}", (template.parent / archive).read_bytes())
            resource["Properties"][code] = f"s3://{_BUCKET}/{archive}"
    _put(f"{endpoint_url}/{_BUCKET}/{template.name}", json.dumps(body).encode())
    client = Aws(endpoint_url=endpoint_url).cloudformation
    try:
        client.create_stack(
            StackName=name,
            TemplateURL=f"{endpoint_url}/{_BUCKET}/{template.name}",
            Parameters=[
                {"ParameterKey": key, "ParameterValue": parameters[key]}
                for key in body.get("Parameters", {})
                if key in parameters
            ],
            Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )
        _await_complete(client, name)
    except ClientError as error:
        raise _refused(name, error.response["Error"]["Message"]) from error
    finally:
        client.close()


def _await_complete(client: "CloudFormationClient", name: str) -> None:
    deadline = time.monotonic() + _DEPLOYED_S
    while (status := client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]).endswith("_IN_PROGRESS"):
        if time.monotonic() > deadline:
            raise _refused(name, f"it is {status} after {_DEPLOYED_S:g} s")
        time.sleep(_POLL_S)
    if status != "CREATE_COMPLETE":
        events: list[Any] = client.describe_stack_events(StackName=name)["StackEvents"]
        failed = [event for event in reversed(events) if event["ResourceStatus"] == "CREATE_FAILED"]
        reasons = "; ".join(
            f"{event['LogicalResourceId']} ({event['ResourceType']}): {event.get('ResourceStatusReason', 'no reason')}"
            for event in failed
        )
        raise _refused(name, reasons or status)


def _refused(name: str, why: str) -> ToolError:
    return ToolError(f"stack {name} was not deployed: {why}", next_step="mend what it names and try again")


def _put(url: str, content: bytes = b"") -> None:
    """Makes a bucket or an object; the emulator checks no signature."""
    headers = {"Content-Type": "application/octet-stream"}  # else urllib says that it is a form, which is then parsed
    request = urllib.request.Request(url, data=content, headers=headers, method="PUT")  # noqa: S310 - loopback
    loopback.open_url(request, timeout_s=60).close()
