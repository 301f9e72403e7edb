"""The package itself: module globals `app` and `sim`, launch, clear, shutdown, and what an import of it does."""

import gc
import os
import signal
import sys
import time
import types

from fake_omnigibson import faults

og = None  # the package `omnigibson`, once imported
generation = build = ""


def install(package, generation, build):
    """Fill the package `omnigibson`."""
    from fake_omnigibson import macros

    module = sys.modules[__name__]
    module.og, module.generation, module.build = package, generation, build
    package.__path__ = []
    package.app = package.sim = None
    package.launch, package.clear, package.shutdown = launch, clear, shutdown
    if generation == "A":  # nothing of it is wanted
        return
    signal.signal(signal.SIGINT, lambda number, frame: shutdown(due_to_signal=True))
    _submodule("macros", gm=macros.global_macros())
    faults.strike("build")
    from fake_omnigibson import environments

    package.Environment = environments.classes[generation, build]["Environment"]
    _submodule("envs", **environments.classes[generation, build])
    settings = types.SimpleNamespace(floats={})
    settings.set_float = settings.floats.__setitem__
    carb = types.SimpleNamespace(settings=types.SimpleNamespace(get_settings=lambda: settings))
    _submodule("lazy", carb=carb)
    _submodule("utils")
    _submodule("utils.python_utils", recursively_convert_to_torch=_to_torch)


def _submodule(name, **attributes):
    module = types.ModuleType(f"omnigibson.{name}")
    module.__path__ = []
    vars(module).update(attributes)
    sys.modules[module.__name__] = module
    parent, _, last = module.__name__.rpartition(".")
    setattr(sys.modules[parent], last, module)


def _to_torch(state):
    import torch

    if isinstance(state, dict):
        return {key: _to_torch(value) for key, value in state.items()}
    if isinstance(state, list) and state and isinstance(state[0], (int, float)):
        return torch.tensor(state, dtype=torch.float32)
    return [_to_torch(value) for value in state] if isinstance(state, list) else state


def launch(**frequencies):
    """Start the one app of the process and its simulator."""
    from fake_omnigibson.simulator import Simulator

    if og.app is None:
        og.arguments = list(sys.argv)  # Kit reads them
        sys.argv += ["--portable-root", os.environ.get("OMNIGIBSON_APPDATA_PATH", "appdata")]
        gc.disable()  # as omni.kit.app does
        og.app = types.SimpleNamespace(gpu=os.environ.get("OMNIGIBSON_GPU_ID"))
    assert og.sim is None, "Only one Simulator instance can be created at a time!"
    og.sim = Simulator(**frequencies)


def clear():
    og.sim = None


def shutdown(due_to_signal=False):
    """Fast shutdown: the process ends here."""
    if faults.active("refuse_to_die"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("the fake refuses to die", flush=True)
        time.sleep(1000)
    os._exit(0)
