"""What Tab offers for names that are in the project's folders. Whatever is wrong there, it offers nothing."""

from lambdalab.errors import LambdalabError
from lambdalab.project import PROTOCOLS, results_folder, scenario_folders


def protocols(incomplete: str) -> list[str]:
    """The protocols of every scenario."""
    try:
        folders = scenario_folders().values()
        found = sorted({path.stem for folder in folders for path in (folder / PROTOCOLS).glob("*.toml")})
    except (LambdalabError, OSError):
        return []
    return [name for name in found if name.startswith(incomplete)]


def scenarios(incomplete: str) -> list[str]:
    """The scenarios of the project."""
    try:
        return [name for name in scenario_folders() if name.startswith(incomplete)]
    except (LambdalabError, OSError):
        return []


def runs(incomplete: str) -> list[str]:
    """The runs of the project's results, the newest first."""
    try:
        found = sorted((path.parent.name for path in results_folder().glob("*/run.json")), reverse=True)
    except OSError:
        return []
    return [name for name in found if name.startswith(incomplete)]
