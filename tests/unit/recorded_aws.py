"""Real boto3 clients whose calls are answered from a table: no network, and answers only of the shapes AWS has."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

from botocore.validate import ParamValidator

from lambdalab.aws.clients import Aws

Answer = dict[str, Any] | str | Callable[[dict[str, Any]], dict[str, Any] | str]
"""An answer, the code of an error, or what makes either from the parameters of a call."""


class RecordedAws(Aws):
    """Clients of an account that exists on paper. They take long to make and may be used by many tests.

    Attributes:
        answers: by operation, such as ``GetFunctionConfiguration``. An operation that is missing fails the test.
    """

    def __init__(self) -> None:
        super().__init__(endpoint_url="http://127.0.0.1:1")
        self.answers: Mapping[str, Answer] = {}

        def remember(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
            context["asked"] = dict(params)

        def answer(model: Any, context: dict[str, Any], **_: Any) -> tuple[SimpleNamespace, dict[str, Any]]:
            found = self.answers[model.name]
            found = found(context["asked"]) if callable(found) else found
            if isinstance(found, str):
                return SimpleNamespace(status_code=400), {"Error": {"Code": found, "Message": "not allowed"}}
            report = ParamValidator().validate(found, model.output_shape)
            assert not report.has_errors(), f"{model.name}: {report.generate_report()}"
            return SimpleNamespace(status_code=200), deepcopy(found)  # botocore changes what it hands on

        events: Any = self.session.events
        events.register("provide-client-params.*.*", remember)
        events.register("before-call.*.*", answer)
