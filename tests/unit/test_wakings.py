"""What would wake a function in a way that does not run here, and what is left alone."""

from typing import Any

import pytest

from lambdalab.aws.template import read_template
from lambdalab.aws.wakings import KINDS, Waking, refuse_custom_resources, wakings
from lambdalab.errors import UsageError

FUNCTION = {"Type": "AWS::Lambda::Function", "Properties": {}}
ALIAS = {"Type": "AWS::Lambda::Alias", "Properties": {"FunctionName": {"Ref": "F"}}}


def found(kind: str, properties: Any) -> list[Waking]:
    resources = {"F": FUNCTION, "G": FUNCTION, "Live": ALIAS, "X": {"Type": kind, "Properties": properties}}
    return wakings({"Resources": resources}, resources)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "reference",
    [
        {"Fn::GetAtt": ["F", "Arn"]},
        {"Fn::GetAtt": "F.Arn"},
        {"Ref": "F"},
        {"Ref": "Live"},
        {"Fn::Sub": "arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${F.Arn}/invocations"},
        [{"deep": {"Fn::Join": ["", ["a", {"Ref": "F"}]]}}],
    ],
)
def test_a_source_is_named_with_its_function(kind: str, reference: Any) -> None:
    assert found(kind, {"Some": reference}) == [Waking(function="F", kind=KINDS[kind], source="X")]


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("AWS::Lambda::Permission", {"FunctionName": {"Ref": "F"}}),
        ("AWS::IAM::Policy", {"Resource": {"Fn::GetAtt": ["F", "Arn"]}}),
        ("AWS::CloudWatch::Alarm", {"Dimensions": [{"Value": {"Ref": "F"}}]}),
        ("AWS::SNS::Subscription", {"Protocol": "sqs", "Endpoint": {"Fn::GetAtt": ["Queue", "Arn"]}}),
        ("AWS::S3::Bucket", None),
    ],
)
def test_what_wakes_no_function_is_not_named(kind: str, properties: Any) -> None:
    assert found(kind, properties) == []


def test_a_resource_whose_condition_is_false_wakes_nothing() -> None:
    rule = {"Type": "AWS::Events::Rule", "Condition": "OnAws", "Properties": {"Targets": [{"Arn": {"Ref": "F"}}]}}
    template = {"Resources": {"F": FUNCTION, "Hourly": rule}}
    assert wakings(template, {"F": ""}) == []
    assert [waking.source for waking in wakings(template, {"F": "", "Hourly": ""})] == ["Hourly"]
    assert wakings(template, {"Hourly": ""}) == [], "nor is a function woken that is not there"


def test_a_sentence_says_what_to_do() -> None:
    (waking,) = found("AWS::SNS::Subscription", {"Endpoint": {"Fn::GetAtt": ["G", "Arn"]}})
    said = "SNS subscription X does not run here and will not wake G; call the function with `lambdalab invoke G "
    assert str(waking).startswith(said)


CUSTOM = """
Resources:
  Maker: {Type: AWS::Serverless::Function}
  Made:
    Type: Custom::Thing
    CONDITION
    Properties: {ServiceToken: !GetAtt Maker.Arn}
  Elsewhere: {Type: Custom::Thing, Properties: {ServiceToken: arn:aws:lambda:us-east-1:1:function:other}}
"""


def test_a_custom_resource_is_refused_unless_a_condition_may_leave_it_out() -> None:
    with pytest.raises(UsageError, match=r"cannot make the custom resources Made \(by Maker\); keep them out"):
        refuse_custom_resources(read_template(CUSTOM.replace("CONDITION", ""), "t"))
    refuse_custom_resources(read_template(CUSTOM.replace("CONDITION", "Condition: OnAws"), "t"))
    odds: list[dict[str, Any]] = [{}, {"Resources": []}, {"Resources": {"X": 7}}]
    for odd in odds:
        refuse_custom_resources(odd)
