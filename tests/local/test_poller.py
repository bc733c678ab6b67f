"""Partial-batch answers: every row of the contract."""

import pytest

from lambdalab.local.batches import failed_message_ids

ALL = {"a", "b", "c"}


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (b'{"batchItemFailures":[{"itemIdentifier":"a"}]}', {"a"}),
        (b'{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"c"}]}', {"a", "c"}),
        (b'{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"a"}]}', {"a"}),
        (b'{"batchItemFailures":[{"itemIdentifier":"a","more":1}],"more":2}', {"a"}),
        (b'{"batchItemFailures":[]}', set()),
        (b'{"batchItemFailures":null}', set()),
        (b"{}", set()),
        (b'{"statusCode":200}', set()),
        (b"null", set()),
        (b"", set()),
        (b" \n", set()),
        (b"{", ALL),
        (b"done", ALL),
        (b"\xff", ALL),
        (b"[" * 100_000, ALL),
        (b'"done"', ALL),
        (b"[]", ALL),
        (b"17", ALL),
        (b'{"batchItemFailures":{}}', ALL),
        (b'{"batchItemFailures":"a"}', ALL),
        (b'{"batchItemFailures":["a"]}', ALL),
        (b'{"batchItemFailures":[null]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":""}]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":null}]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":1}]}', ALL),
        (b'{"batchItemFailures":[{"itemidentifier":"a"}]}', ALL),
        (b'{"batchItemFailures":[{}]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":"d"}]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"d"}]}', ALL),
    ],
    ids=repr,
)
def test_partial_batch_contract(answer: bytes, failed: set[str]) -> None:
    assert failed_message_ids(answer, ALL) == failed
