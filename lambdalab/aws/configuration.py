"""What an arm asks of a deployed function, set through the AWS API without a deployment, and put back afterwards.

Memory, environment variables, code and batch size are Lambda's own settings; every change is waited for. What was found
is remembered before the first change, so that ``restore`` leaves the function as it was.
"""

import time
from contextlib import suppress
from typing import Any, Final

import msgspec
from botocore.exceptions import WaiterError

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.aws.package import Package
from lambdalab.design.arms import Architecture
from lambdalab.errors import AccessError

COLD_START_VARIABLE: Final = "LAMBDALAB_COLD_START"
"""The variable a configuration bump sets; a left-over of a killed run is dropped by the next."""
MAPPING_WAIT_S: Final = 120.0


class _Found(msgspec.Struct, kw_only=True):
    """A function as it was before the first change; its package is fetched before the first change of code."""

    variables: dict[str, str]
    memory_mb: int
    architecture: Architecture
    code_sha256: str
    package: Package | None = None


class Configurations:
    """The functions of a stack under changing settings."""

    def __init__(self, aws: Aws) -> None:
        self._aws, self._lambda = aws, aws.lambda_
        self._found: dict[str, _Found] = {}
        self._batch_sizes: dict[str, tuple[str, int]] = {}
        self._reserved: dict[str, int | None] = {}
        self._bumps = 0

    def apply(self, function_name: str, *, memory_mb: int | None, package: Package | None) -> bool:
        """Gives a function memory and code; None of either is what it had at the beginning.

        Returns:
            Whether that changed anything, so that its next invocations begin in new environments.

        Raises:
            AccessError: Lambda refuses, or cannot be asked.
        """
        with access_errors(f"the configuration of {function_name}"):
            found = self._remember(function_name)
            now = self._lambda.get_function_configuration(FunctionName=function_name)
            memory_mb = memory_mb or found.memory_mb
            if changes := now["MemorySize"] != memory_mb:
                self._lambda.update_function_configuration(FunctionName=function_name, MemorySize=memory_mb)
                self._wait(function_name)
            wanted = found if package is None else package
            if (now["CodeSha256"], now["Architectures"][0]) != (wanted.code_sha256, wanted.architecture):
                if found.package is None:
                    found.package = self._download(function_name, found.architecture)
                self._upload(function_name, package or found.package)
                changes = True
        return changes

    def reserve(self, function_name: str, concurrency: int | None) -> None:
        """Sets a function's reserved concurrency; 0 is none, and None what it had at the beginning.

        Raises:
            AccessError: Lambda refuses, or cannot be asked.
        """
        if concurrency is None and function_name not in self._reserved:
            return
        with access_errors(f"the reserved concurrency of {function_name}"):
            if function_name not in self._reserved:
                self._reserved[function_name] = self._reserved_now(function_name)
            wanted = self._reserved[function_name] if concurrency is None else concurrency or None
            if self._reserved_now(function_name) != wanted:
                self._reserve(function_name, wanted)

    def batch_size(self, function_name: str, queue_arn: str, wanted: int) -> None:
        """Sets the batch size of the mapping from a queue.

        Raises:
            AccessError: Lambda refuses, or the mapping does not become ready.
        """
        with access_errors(f"the event source mapping of {function_name}"):
            if function_name not in self._batch_sizes:
                mapping = self._mapping(function_name, queue_arn)
                self._batch_sizes[function_name] = (mapping["UUID"], mapping["BatchSize"])
            self._set_batch_size(self._batch_sizes[function_name][0], wanted)

    def bump(self, function_name: str) -> None:
        """Makes the next invocation a cold one: an environment variable is changed, and the change waited for."""
        with access_errors(f"the configuration of {function_name}"):
            found = self._remember(function_name)
            self._bumps += 1
            marker = f"{int(time.time())}-{self._bumps}"
            self._set_variables(function_name, found.variables | {COLD_START_VARIABLE: marker})

    def remember(self, function_name: str) -> None:
        """Makes ``restore`` look at a function also if nothing changes it: a killed run may have left its marker there.

        Raises:
            AccessError: it cannot be asked for.
        """
        self._settle(function_name)
        with access_errors(f"the configuration of {function_name}"):
            self._remember(function_name)

    def restore(self) -> None:
        """Gives every function and mapping back what it had; what was put back is forgotten, so it may be repeated.

        Raises:
            AccessError: of the first that could not be put back, after all others were tried; they are its notes.
        """
        failures: list[AccessError] = []
        for remembered, put_back in (
            (self._found, self._restore_function),
            (self._batch_sizes, self._restore_mapping),
            (self._reserved, lambda name: self.reserve(name, None)),
        ):
            for name in tuple(remembered):
                try:
                    put_back(name)
                except AccessError as failure:
                    failures.append(failure)
                else:
                    del remembered[name]
        if failures:
            for another in failures[1:]:
                failures[0].add_note(str(another))
            raise failures[0]

    def _restore_function(self, name: str) -> None:
        self._settle(name)
        self.apply(name, memory_mb=None, package=None)
        with access_errors(f"the configuration of {name}"):
            now = self._lambda.get_function_configuration(FunctionName=name)
            if now.get("Environment", {}).get("Variables", {}) != self._found[name].variables:
                self._set_variables(name, self._found[name].variables)

    def _restore_mapping(self, name: str) -> None:
        uuid, before = self._batch_sizes[name]
        with access_errors(f"the event source mapping of {name}"):
            self._set_batch_size(uuid, before)

    def _reserved_now(self, name: str) -> int | None:
        return self._lambda.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")

    def _reserve(self, name: str, concurrency: int | None) -> None:
        if concurrency is None:
            self._lambda.delete_function_concurrency(FunctionName=name)
        else:
            self._lambda.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=concurrency)

    def _remember(self, name: str) -> _Found:
        if name not in self._found:
            found = self._lambda.get_function_configuration(FunctionName=name)
            variables = dict(found.get("Environment", {}).get("Variables", {}))
            variables.pop(COLD_START_VARIABLE, None)
            self._found[name] = _Found(
                variables=variables,
                memory_mb=found["MemorySize"],
                architecture=found["Architectures"][0],
                code_sha256=found["CodeSha256"],
            )
        return self._found[name]

    def _mapping(self, function_name: str, queue_arn: str) -> Any:
        found = self._lambda.list_event_source_mappings(FunctionName=function_name, EventSourceArn=queue_arn)
        return found["EventSourceMappings"][0]

    def _set_batch_size(self, uuid: str, batch_size: int) -> None:
        if self._settled(uuid)["BatchSize"] != batch_size:
            self._lambda.update_event_source_mapping(UUID=uuid, BatchSize=batch_size)
            self._settled(uuid)

    def _settled(self, uuid: str) -> Any:
        """The mapping, when no change of it is under way: until then Lambda refuses another."""
        deadline = time.monotonic() + MAPPING_WAIT_S
        while (mapping := self._lambda.get_event_source_mapping(UUID=uuid))["State"] in ("Updating", "Enabling"):
            if time.monotonic() > deadline:
                raise AccessError(
                    f"event source mapping {uuid} is still {mapping['State']} after {MAPPING_WAIT_S:g} s",
                    next_step="try it again",
                )
            time.sleep(0.5)
        return mapping

    def _set_variables(self, function_name: str, variables: dict[str, str]) -> None:
        self._lambda.update_function_configuration(FunctionName=function_name, Environment={"Variables": variables})
        self._wait(function_name)

    def _download(self, function_name: str, architecture: Architecture) -> Package:
        """The code as it is deployed, so that it can be put back."""
        location = self._lambda.get_function(FunctionName=function_name)["Code"]["Location"]
        try:
            with self._aws.open(location, timeout_s=60) as answer:
                return Package(content=answer.read(), architecture=architecture)
        except OSError as error:
            raise AccessError(
                f"the deployed code of {function_name} cannot be fetched: {error}", next_step="try it again"
            ) from error

    def _upload(self, function_name: str, package: Package) -> None:
        answer = self._lambda.update_function_code(
            FunctionName=function_name, ZipFile=package.content, Architectures=[package.architecture]
        )
        self._wait(function_name)
        if answer["CodeSha256"] != package.code_sha256:
            raise AccessError(
                f"{function_name} has code {answer['CodeSha256']} after an update to {package.code_sha256}",
                next_step="try it again, when nobody else deploys",
            )

    def _settle(self, function_name: str) -> None:
        """For the end of a change that was interrupted: until then Lambda refuses another. It may have failed."""
        with access_errors(f"the configuration of {function_name}"), suppress(WaiterError):
            self._wait(function_name)

    def _wait(self, function_name: str) -> None:
        self._lambda.get_waiter("function_updated_v2").wait(
            FunctionName=function_name, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
