"""`gm` and `macros`: settings that are locked once they have been read."""

import contextlib
import os
from pathlib import Path


class MacroDict:
    """Attributes that may be set until they are read, and only those that exist."""

    def __init__(self, **values):
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_read", set())
        object.__setattr__(self, "_open", False)

    def __getattr__(self, name):
        if name.startswith("_") or name not in self._values:
            raise AttributeError(name)
        self._read.add(name)
        return self._values[name]

    def __setattr__(self, name, value):
        if name not in self._values:
            raise AttributeError(f"no macro {name}")
        if name in self._read and not self._open:
            raise AttributeError(f"Cannot set attribute {name} in MacroDict, it has already been used.")
        self._values[name] = value

    @contextlib.contextmanager
    def unlocked(self):
        object.__setattr__(self, "_open", True)
        yield
        object.__setattr__(self, "_open", False)


def data_path():
    """As `determine_data_path`; the import of generations B and C asserts that it exists."""
    path = os.environ.get("OMNIGIBSON_DATA_PATH", str(Path(__file__).parent / "datasets"))
    assert os.path.exists(path), f"Data path {path} does not exist!"
    return path


def global_macros():
    headless = os.environ.get("OMNIGIBSON_HEADLESS", "").lower() in ("1", "true", "t")
    return MacroDict(
        HEADLESS=headless,
        DATA_PATH=data_path(),
        USE_GPU_DYNAMICS=False,
        ENABLE_FLATCACHE=False,
        ENABLE_OBJECT_STATES=True,
        ENABLE_TRANSITION_RULES=True,
        USE_NUMPY_CONTROLLER_BACKEND=True,
        RENDER_VIEWER_CAMERA=False,
        ENABLE_HQ_RENDERING=False,
        ENABLE_CCD=False,
        DEFAULT_VIEWER_WIDTH=1280,
        DEFAULT_VIEWER_HEIGHT=720,
    )
