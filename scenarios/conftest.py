"""What the tests of scenarios share with those of the lab: the command line on a copy of the project, and a machine."""

from e2e.conftest import begin, clean_environment, lambdalab, project  # noqa: F401
from local.conftest import machine, pytest_pyfunc_call  # noqa: F401
