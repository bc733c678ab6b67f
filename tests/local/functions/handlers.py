"""What a function may do, good and bad; the event names it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

kept: list[Any] = []
ticks = 0
invocations = 0


def handler(event: dict[str, Any], context: Any) -> Any:
    global invocations
    invocations += 1
    return globals()[event["do"]](event, context)


def echo(event: dict[str, Any], context: Any) -> Any:
    return event


def facts(event: dict[str, Any], context: Any) -> Any:
    return {
        "variables": dict(os.environ),
        "folder": str(Path.cwd()),
        "path": sys.path,
        "invocations": invocations,
        "remaining_ms": context.get_remaining_time_in_millis(),
        "arn": context.invoked_function_arn,
        "memory": context.memory_limit_in_mb,
        "request_id": context.aws_request_id,
        "client": context.client_context and context.client_context.custom,
        "pid": os.getpid(),
    }


def fail(event: dict[str, Any], context: Any) -> Any:
    raise ValueError("nein: \u00e4")


def fail_first(event: dict[str, Any], context: Any) -> Any:
    if invocations <= event["times"]:
        raise ValueError(event.get("text", "not yet"))
    return {"invocations": invocations}


def sleep(event: dict[str, Any], context: Any) -> Any:
    time.sleep(event["s"])
    return "slept"


def work(event: dict[str, Any], context: Any) -> Any:
    until = time.thread_time() + event["s"]
    while time.thread_time() < until:
        pass


def leave(event: dict[str, Any], context: Any) -> Any:
    os._exit(event["code"])


def quit_python(event: dict[str, Any], context: Any) -> Any:
    sys.exit(4)


def killed(event: dict[str, Any], context: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def allocate(event: dict[str, Any], context: Any) -> Any:
    kept.append(bytearray(os.urandom(1024)) * (event["mb"] * 1024))
    return len(kept[-1])


def large(event: dict[str, Any], context: Any) -> Any:
    return "x" * event["bytes"]


def measure(event: dict[str, Any], context: Any) -> Any:
    return len(event["text"])


def write(event: dict[str, Any], context: Any) -> Any:
    os.write(1, bytes.fromhex(event["hex"]))


def flood(event: dict[str, Any], context: Any) -> Any:
    while True:
        os.write(1, (b"x" * 60 + b"\n") * 1000)


def babble(event: dict[str, Any], context: Any) -> Any:
    def write() -> None:
        while True:
            os.write(1, b"babble\n" * 1000)

    threading.Thread(target=write, daemon=True).start()


def child(event: dict[str, Any], context: Any) -> Any:
    process = subprocess.Popen(["sleep", "300"], start_new_session=event["detached"])
    kept.append(process)
    return process.pid


def large_child(event: dict[str, Any], context: Any) -> Any:
    code = "print(len(bytearray(60 << 20)), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    kept.append(process)


def end_children(event: dict[str, Any], context: Any) -> Any:
    for process in kept:
        process.kill()
        process.wait()


def tick(event: dict[str, Any], context: Any) -> Any:
    def count() -> None:
        global ticks
        while True:
            ticks += 1
            time.sleep(0.002)

    if not ticks:
        threading.Thread(target=count, daemon=True).start()
        time.sleep(0.02)
    return ticks


def sdk(event: dict[str, Any], context: Any) -> Any:
    import boto3

    return boto3.__version__


def open_files(event: dict[str, Any], context: Any) -> Any:
    found = [os.dup(0)]
    try:
        while True:
            found.append(os.dup(0))
    except OSError as error:
        return {"highest": found[-1], "error": error.strerror}
    finally:
        for descriptor in found:
            os.close(descriptor)


def start_threads(event: dict[str, Any], context: Any) -> Any:
    done = threading.Event()
    threads = []
    try:
        for _ in range(event["threads"]):
            threads.append(threading.Thread(target=done.wait))
            threads[-1].start()
    except RuntimeError as error:
        return {"started": len(threads) - 1, "error": str(error)}
    finally:
        done.set()
        for thread in filter(threading.Thread.is_alive, threads):
            thread.join()
    return {"started": len(threads)}
