"""OmniGibson 3.8.0 as Baton sees it, generation C (vector)."""

import sys

from fake_omnigibson.package import install

__version__ = "3.8.0"

install(sys.modules[__name__], generation="C", build="vector")
