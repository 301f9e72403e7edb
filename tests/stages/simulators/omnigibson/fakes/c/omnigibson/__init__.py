"""OmniGibson 3.9.2 as Baton sees it, generation C (upstream)."""

import sys

from fake_omnigibson.package import install

__version__ = "3.9.2"

install(sys.modules[__name__], generation="C", build="upstream")
