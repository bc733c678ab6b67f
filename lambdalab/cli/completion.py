"""What Tab offers for names that are in the project's folders. Whatever is wrong there, it offers nothing."""

from lambdalab.errors import LambdalabError
from lambdalab.project import project_root, results_folder


def protocols(incomplete: str) -> list[str]:
    """The protocols of protocols/."""
    try:
        found = sorted(path.stem for path in (project_root() / "protocols").glob("*.toml"))
    except (LambdalabError, OSError):
        return []
    return [name for name in found if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """The runs of the project's results, the newest first."""
    try:
        found = sorted((path.parent.name for path in results_folder().glob("*/run.json")), reverse=True)
    except OSError:
        return []
    return [name for name in found if name.startswith(incomplete)]
