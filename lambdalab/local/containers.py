"""What makes ``sam local`` work with the local stack: images, the functions' variables, a way to the emulator."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.aws.clients import access_errors
from lambdalab.local.base_images import has_image, is_made, made_image, make_image, public_image
from lambdalab.local.docker import bridged, configure_without_proxies, docker, host_interface, require_engine
from lambdalab.local.stack import LocalStack
from lambdalab.project import state_folder

EMULATOR_HOST: Final = "emulator"
"""The emulator's name in a container."""
_LONGEST_PULL_S: Final = 600.0


@contextlib.asynccontextmanager
async def sam_local_options(
    stack: LocalStack, images: dict[str, str]
) -> AsyncIterator[tuple[list[str], dict[str, str]]]:
    """Options and variables for ``sam local``. Its containers reach the emulator as long as the block lasts.

    Args:
        stack: a local stack that is up.
        images: of each function, by logical id (``ensure_images``).

    Raises:
        SetupError: the engine has no network of its own, or the stack does not answer.
    """
    host = host_interface()
    async with bridged(host, stack.emulator.port) as port:
        with tempfile.TemporaryDirectory(prefix="sam-local-", dir=state_folder()) as folder:
            docker_config = Path(folder) / "docker"
            docker_config.mkdir()
            configure_without_proxies(docker_config)
            file = Path(folder) / "env.json"
            file.write_bytes(msgspec.json.encode(env_json(stack, f"http://{EMULATOR_HOST}:{port}")))
            options = ["--env-vars", str(file), "--add-host", f"{EMULATOR_HOST}:{host.ip}"]
            for logical, image in images.items():
                if is_made(image):  # of AWS's own, sam looks whether there is a newer one
                    options += ["--invoke-image", f"{logical}={image}", "--skip-pull-image"]
            yield options, {"DOCKER_CONFIG": str(docker_config)}


def env_json(stack: LocalStack, endpoint_url: str) -> dict[str, dict[str, str]]:
    """``env.json`` for ``sam local --env-vars``: the deployed functions' variables, and the emulator's endpoint.

    By logical id. sam alone would give them the table's logical id for its name, and no endpoint.
    """
    found = {}
    with closing(stack.aws().lambda_) as client, access_errors("the functions of the local stack"):
        for logical, name in stack.status()["logical_names"].items():
            deployed = client.get_function_configuration(FunctionName=name).get("Environment", {})
            found[logical] = {**deployed.get("Variables", {}), "AWS_ENDPOINT_URL": endpoint_url}
    return found


def runtimes(stack: LocalStack) -> dict[str, str]:
    """The functions of a stack by logical id, with their runtimes."""
    status = stack.status()
    return {logical: status["functions"][name]["runtime"] for logical, name in status["logical_names"].items()}


def ensure_images(stack: LocalStack, progress: Callable[[str], None]) -> dict[str, str]:
    """Sees to an image for every function of a stack; ``progress`` is told what is pulled or made.

    Raises:
        SetupError: no Docker engine answers, the stack does not, or there is no image and none can be made.
    """
    require_engine()
    return {logical: ensure_image(runtime, progress) for logical, runtime in runtimes(stack).items()}


def ensure_image(runtime: str, progress: Callable[[str], None]) -> str:
    """Sees to an image for a runtime: AWS's own, pulled where a registry can be reached, else one made here.

    Returns:
        Its name.

    Raises:
        SetupError: there is none and none can be made.
    """
    public = public_image(runtime)
    if has_image(public):
        return public
    made = made_image(runtime)
    if has_image(made):
        return made
    progress(f"pulling {public}")
    pulled = docker("pull", "--quiet", public, longest_s=_LONGEST_PULL_S)
    if pulled.returncode == 0:
        return public
    said = (pulled.stderr.strip().splitlines() or ["no reason given"])[-1]
    progress(f"it cannot be pulled ({said}); making {made} of this machine's files")
    return make_image(runtime)
