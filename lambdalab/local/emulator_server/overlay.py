"""Puts ``Backlog`` in the place of the emulator's walks over a queue's messages.

It is made for one version of the emulator's SQS, known by the hash of its source. Any other keeps its own code, and
``lambdalab status`` and ``lambdalab doctor`` say so. FIFO queues keep the emulator's code.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from backlog import Backlog

MADE_FOR_SHA256: Final = "4fcd505a84a6f7b9ed70b29717ccbb0d52b600ca0d93117a006edf99b3b8ae01"
"""Of ``ministack/services/sqs.py`` in MiniStack 1.5.33."""
_NO_SUCH_RECEIPT: Final = ("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
Queue = dict[str, Any]


def install(sqs: Any) -> str | None:
    """Replaces functions of the emulator's module; returns why not, or None when it is done.

    Args:
        sqs: the module ``ministack.services.sqs``.
    """
    found = hashlib.sha256(Path(sqs.__file__).read_bytes()).hexdigest()
    if found != MADE_FOR_SHA256:
        return f"its SQS is not that of the pinned version (SHA-256 {found[:12]}..., not {MADE_FOR_SHA256[:12]}...)"
    for name, function in _replacements(sqs).items():
        original = getattr(sqs, name)
        setattr(sqs, name, function)
        for action, handler in sqs._HANDLERS.items():
            if handler is original:
                sqs._HANDLERS[action] = function
    return None


def _replacements(sqs: Any) -> dict[str, Callable[..., Any]]:
    """By name, what takes the place of the module's functions."""
    own = {name: getattr(sqs, name) for name in ("_collect_msgs", "_dlq_sweep", "_expire_retained", "_refresh_counts")}
    own |= {name: getattr(sqs, name) for name in ("_act_delete_message", "_act_change_visibility")}

    def backlog(queue: Queue) -> Backlog:
        listed = queue["messages"]
        if not isinstance(listed, Backlog):
            queue["messages"] = Backlog(taken := list(listed), sqs._ensure_msg_fields)
            for late in listed[len(taken) :]:  # another thread sent it meanwhile
                queue["messages"].append(late)
        found: Backlog = queue["messages"]
        return found

    def collect(queue: Queue, most: int, hide_s: int) -> Any:
        if queue["is_fifo"]:
            return own["_collect_msgs"](queue, most, hide_s)
        return backlog(queue).take(most, time.time(), hide_s, sqs.new_uuid)

    def expire(queue: Queue) -> None:
        if queue["is_fifo"]:
            own["_expire_retained"](queue)
        else:
            backlog(queue).expire(time.time() - int(queue["attributes"].get("MessageRetentionPeriod", "345600")))

    def sweep(queue: Queue) -> None:
        if queue["is_fifo"]:
            own["_dlq_sweep"](queue)
            return
        policy = sqs.json.loads(queue["attributes"].get("RedrivePolicy") or "{}")
        most, target = int(policy.get("maxReceiveCount", 0)), policy.get("deadLetterTargetArn", "")
        dead_letters = sqs._queue_by_arn(target) if most and target else None
        if dead_letters is None:
            return
        now = time.time()
        for message in backlog(queue).give_up(most, now):
            came_from = {"DeadLetterQueueSourceArn": queue["attributes"].get("QueueArn", "")}
            moved = message | {"receipt_handle": None, "visible_at": now, "sys": came_from | message["sys"]}
            dead_letters["messages"].append(moved)
            sqs.esm_wake.set()

    def refresh_counts(queue: Queue) -> None:
        if queue["is_fifo"]:
            own["_refresh_counts"](queue)
            return
        expire(queue)
        visible, in_flight, delayed = backlog(queue).counts(time.time())
        queue["attributes"] |= {
            "ApproximateNumberOfMessages": str(visible),
            "ApproximateNumberOfMessagesNotVisible": str(in_flight),
            "ApproximateNumberOfMessagesDelayed": str(delayed),
        }

    def delete(data: dict[str, Any], url: str) -> dict[str, Any]:
        queue = sqs._get_q(data.get("QueueUrl", url), "sqs:DeleteMessage")
        if queue["is_fifo"] or not data.get("ReceiptHandle"):
            return own["_act_delete_message"](data, url)  # type: ignore[no-any-return]
        if not backlog(queue).delete(data["ReceiptHandle"]):
            raise sqs._Err(*_NO_SUCH_RECEIPT)
        return {}

    def change_visibility(data: dict[str, Any], url: str) -> dict[str, Any]:
        queue = sqs._get_q(data.get("QueueUrl", url), "sqs:ChangeMessageVisibility")
        if queue["is_fifo"]:
            return own["_act_change_visibility"](data, url)  # type: ignore[no-any-return]
        hide_s = int(data.get("VisibilityTimeout", 30))
        if not backlog(queue).hide(data.get("ReceiptHandle", ""), time.time() + hide_s):
            raise sqs._Err(*_NO_SUCH_RECEIPT)
        return {}

    def in_batch(act: Callable[..., Any], entry_name: str) -> Callable[[dict[str, Any], str], dict[str, Any]]:
        def act_on_all(data: dict[str, Any], url: str) -> dict[str, Any]:
            url = data.get("QueueUrl", url)
            sqs._get_q(url)
            sqs._validate_batch_entries(data.get("Entries", []), entry_name)
            done, failed = [], []
            for entry in data["Entries"]:
                try:
                    act(entry | {"QueueUrl": url}, url)
                    done.append({"Id": entry["Id"]})
                except sqs._Err:
                    code, message = _NO_SUCH_RECEIPT
                    failed.append({"Id": entry["Id"], "Code": code, "Message": message, "SenderFault": True})
            return {"Successful": done, "Failed": failed}

        return act_on_all

    return {
        "_collect_msgs": collect,
        "_expire_retained": expire,
        "_dlq_sweep": sweep,
        "_refresh_counts": refresh_counts,
        "_act_delete_message": delete,
        "_act_delete_message_batch": in_batch(delete, "DeleteMessageBatchRequestEntry"),
        "_act_change_visibility": change_visibility,
        "_act_change_visibility_batch": in_batch(change_visibility, "ChangeMessageVisibilityBatchRequestEntry"),
    }
