"""OmniGibson 3.7.2 as Baton sees it, generation B (upstream)."""

import sys

from fake_omnigibson.package import install

__version__ = "3.7.2"

install(sys.modules[__name__], generation="B", build="upstream")
