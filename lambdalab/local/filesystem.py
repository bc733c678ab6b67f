"""What an environment sees as ``/tmp`` and ``/opt``: a mount namespace of its own, where this machine allows one.

``/tmp`` lives as long as the environment, also through a reset, and has the function's size (AWS Lambda Developer
Guide, "Configure ephemeral storage"); ``/opt`` holds its layers ("Packaging your layer content"). The namespace is made
before init is timed, by a thread that enters it to spawn, so that a start costs two system calls more.

======== ================================================== =====================================
kind     where                                              the size of ``/tmp``
======== ================================================== =====================================
image    root, with loop devices: a file system in a file   holds; its pages can be reclaimed
folder   root without them, or a user namespace: a folder   is not limited
none     neither: ``TMPDIR`` names a folder                 is not limited
======== ================================================== =====================================

A tmpfs would be simpler, but its pages count as the function's memory, which Lambda's ``/tmp`` does not.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final, TypeVar

from lambdalab import loopback, processes
from lambdalab.errors import PlaneError

KINDS: Final = ("image", "folder", "none")
_CLONE_FS: Final = 0x00000200
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_MS_NOSUID_NODEV: Final = 2 | 4
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_IMAGE_INODES_MB: Final = 17
_IMAGE_RESERVE_MB: Final = 16
"""What ext4 keeps for itself: 65,536 inodes, and 2 % in reserve up to this."""
_OWN_NAMESPACE: Final = "/proc/thread-self/ns/mnt"
_TMP: Final = Path("/tmp")  # noqa: S108 - the function's own
_libc: Final = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def enter_user_namespace() -> bool:
    """Lets this process mount in namespaces of its own, as an ordinary user; must be called before it has threads."""
    child = os.fork()  # some systems let one in and then allow nothing there, and there is no way back
    if child == 0:
        with contextlib.suppress(OSError):
            _unshare_user()
            os._exit(0)
        os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        return False
    _unshare_user()
    return True


def _unshare_user() -> None:
    user, group = os.geteuid(), os.getegid()
    _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


class FileSystem:
    """The file system of one environment; made by ``FileSystems.create``."""

    def __init__(self, systems: "FileSystems", *, tmp_mb: int, needed: Iterable[Path], layers: Path | None) -> None:
        self._systems, self._tmp_mb, self._needed, self._layers = systems, tmp_mb, tuple(needed), layers
        self._making: Future[None] | None = None
        self._folder: Path | None = None
        self._namespace: int | None = None

    @property
    def opt(self) -> Path | None:
        """Where the function finds its layers; None without any."""
        return self._layers if self._layers is None or self._systems.kind == "none" else Path("/opt")

    @property
    def variables(self) -> dict[str, str]:
        """What the function has to be told: only where ``/tmp`` is not its own."""
        return {"TMPDIR": str(self._folder)} if self._systems.kind == "none" else {}

    async def prepare(self) -> None:
        """Makes it, once.

        Raises:
            PlaneError: this machine cannot, though it could when the plane started.
        """
        if self._making is not None:
            return
        self._making = self._systems.make(self._make)
        try:
            await asyncio.wrap_future(self._making)
        except (OSError, subprocess.CalledProcessError) as error:
            said = error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
            raise PlaneError(
                f"an environment's /tmp of {self._tmp_mb} MB cannot be made: {said}",
                next_step="free space where .lambdalab lies, or end environments",
            ) from error

    def spawn(self, start: Callable[[], T]) -> tuple[T, int]:
        """Calls ``start`` where this file system is seen; returns its result and the ``perf_counter_ns`` before it.

        Waits for it, as for any spawn: a caller that gave up in between would leave a process nobody knows.
        """

        def inside() -> tuple[T, int]:
            if self._namespace is not None:
                _checked(_libc.setns(self._namespace, _CLONE_NEWNS))
            before_ns = time.perf_counter_ns()
            return start(), before_ns

        return self._systems.spawn(inside).result()

    def close(self) -> None:
        """Gives everything back, once its processes have ended; the kernel unmounts with the last user."""
        if self._making is not None:
            wait([self._making])
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self) -> None:
        self._folder = self._systems.new_folder()
        if self._systems.kind == "none":
            return
        _checked(_libc.unshare(_CLONE_NEWNS))
        _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
        # The project itself may lie below what is hidden now: then that part of it is seen again at its place.
        with contextlib.ExitStack() as descriptors:

            def hold(path: Path) -> Path:
                descriptor = os.open(path, os.O_PATH)
                descriptors.callback(os.close, descriptor)
                return Path(f"/proc/{os.getpid()}/fd/{descriptor}")

            held = {path: hold(path) for path in self._needed}
            layers = None if self._layers is None else hold(self._layers)
            self._make_tmp(hold(self._folder))
            if layers is not None:
                _mount(None, "/opt", "tmpfs", _MS_NOSUID_NODEV)
                for entry in layers.iterdir():
                    _show(entry, Path("/opt", entry.name))
            for path, source in held.items():
                if not path.exists():
                    _show(source, path)
        self._namespace = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)

    def _make_tmp(self, folder: Path) -> None:
        if self._systems.kind == "image":
            image = folder / "image"
            _make_image(image, self._tmp_mb)
            _run("mount", "-n", "-o", "loop,nosuid,nodev", str(image), str(_TMP))
            image.unlink()  # the mount holds it
            (_TMP / "lost+found").rmdir()
        else:
            _mount(folder, str(_TMP), None, _MS_BIND)
        _TMP.chmod(0o1777)


class FileSystems:
    """Makes the file systems of environments, in whatever way this machine and user allow; ``kind`` says which."""

    def __init__(self, folder: Path) -> None:
        """Finds out what is possible.

        Args:
            folder: on a disk; what environments write to ``/tmp`` lies in it, and leaves with them.
        """
        self._parent = folder
        _remove_left_overs(folder)
        self._folder = Path(tempfile.mkdtemp(prefix=f"environments-{os.getpid()}-", dir=folder))
        self._home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._makers = ThreadPoolExecutor(2, thread_name_prefix="make")
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="spawn")
        for self.kind in KINDS:
            trial = FileSystem(self, tmp_mb=512, needed=(), layers=None)
            try:
                self.make(trial._make).result()
            except (OSError, subprocess.CalledProcessError):
                continue
            finally:
                trial.close()
            break

    def create(self, *, tmp_mb: int, needed: Iterable[Path], layers: Path | None) -> FileSystem:
        """A file system for a new environment.

        Args:
            tmp_mb: the size of ``/tmp``.
            needed: folders the function must see even if they lie below ``/tmp`` or ``/opt``.
            layers: the folder to be seen as ``/opt``.
        """
        return FileSystem(self, tmp_mb=tmp_mb, needed=needed, layers=layers)

    def close(self) -> None:
        """Removes what is left."""
        self._makers.shutdown()
        self._spawner.shutdown()
        os.close(self._home)
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_folder(self) -> Path:
        """A folder of one environment."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    def make(self, work: Callable[[], T]) -> Future[T]:
        """Does work that may change its thread's namespace and takes a while."""
        return self._makers.submit(self._at_home, work)

    def spawn(self, work: Callable[[], T]) -> Future[T]:
        """Does work likewise that must not wait behind what is being made."""
        return self._spawner.submit(self._at_home, work)

    def _at_home(self, work: Callable[[], T]) -> T:
        if self.kind == "none":
            return work()
        _checked(_libc.unshare(_CLONE_FS))  # else every thread of the plane would change its folder
        try:
            return work()
        finally:
            _checked(_libc.setns(self._home, _CLONE_NEWNS))


def _make_image(image: Path, tmp_mb: int) -> None:
    """A file with an empty ext4 in it that offers ``tmp_mb``; it takes room on the disk only as it fills."""
    with image.open("wb") as file:
        reserve_mb = min(tmp_mb // 48 + 1, _IMAGE_RESERVE_MB)
        file.truncate((tmp_mb + _IMAGE_INODES_MB + reserve_mb) * 1024 * 1024)
    features = ("-O", "^has_journal,^resize_inode", "-N", "65536", "-m", "0", "-E", "lazy_itable_init=1,nodiscard")
    _run("mkfs.ext4", "-q", *features, str(image))


def _show(source: Path, target: Path) -> None:
    """Makes a file or folder visible at another place."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.touch()
    _mount(source, str(target), None, _MS_BIND | _MS_REC)


def _mount(source: Path | None, target: str, kind: str | None, flags: int) -> None:
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _checked(_libc.mount(*arguments, ctypes.c_ulong(flags), None))


def _run(*command: str) -> None:
    path = os.pathsep.join(("/usr/sbin", "/sbin", os.environ.get("PATH", os.defpath)))
    subprocess.run(
        [shutil.which(command[0], path=path) or command[0], *command[1:]],
        env=loopback.variables(),
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _remove_left_overs(folder: Path) -> None:
    """What planes left that were killed."""
    for left in folder.glob("environments-*-*"):
        with contextlib.suppress(ValueError):
            if not processes.exists(int(left.name.split("-")[1])):
                shutil.rmtree(left, ignore_errors=True)


def layer_variables(opt: Path | None, runtime: str) -> dict[str, str]:
    """The search paths through which a function finds what its layers hold."""
    if opt is None:
        return {}
    python = opt / "python"
    found = {"LD_LIBRARY_PATH": str(opt / "lib"), "PATH": f"/usr/local/bin:/usr/bin/:/bin:{opt / 'bin'}"}
    if runtime.startswith("python"):
        found["PYTHONPATH"] = f"{python / 'lib' / runtime / 'site-packages'}:{python}"
    return found


def needed_folders(package: Path, interpreter: Path | None) -> list[Path]:
    """What a function must see wherever it lies: its package, and its Python with the one that was made from."""
    if interpreter is None:
        return [package]
    return [package, interpreter.parent.parent, interpreter.resolve().parent.parent]
