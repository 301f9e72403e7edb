"""OmniGibson 1.1.1 as Baton sees it, generation A (upstream)."""

import sys

from fake_omnigibson.package import install

__version__ = "1.1.1"

install(sys.modules[__name__], generation="A", build="upstream")
