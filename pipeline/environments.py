"""Environments of simulators: what `configs/envs/<name>` describes, and where they are built once.

$BATON_ENVS/<name>/                  default: ~/.local/share/baton/envs
    bin/python                       what `simulator.python` is when a config leaves it out
    build.log                        what the steps printed
    steps.json                       the steps that are done, by what they do: an interrupted build goes on
    built.json                       there once all is done and checked
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError
from pipeline.rundir import package_root

DEFINITIONS = package_root() / "configs" / "envs"
DEFINITION, BUILT = "environment.yaml", "built.json"
VARIABLE = "BATON_ENVS"

Text = Annotated[str, Field(min_length=1)]


class Need(BaseModel):
    """What a machine must have before anything is built.

    Attributes:
        name: what it is called.
        test: a shell command that succeeds where it is there.
        remedy: what to do where it is not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Text
    test: Text
    remedy: Text


class Step(BaseModel):
    """A part of the work, or a check of what was built.

    Attributes:
        name: what it is called.
        run: a shell command; PYTHON, ENVIRONMENT and DEFINITION are its interpreter and the two directories.
        files: files of the definition that it reads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Text
    run: Text
    files: tuple[Text, ...] = ()


class Definition(BaseModel):
    """`environment.yaml`.

    Attributes:
        description: one line.
        python: version of the interpreter, e.g. "3.10".
        disk_gb: what the environment takes.
        needs: what the machine must have.
        steps: what is done, in order, once there is an empty environment.
        checks: what must succeed in the end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    description: Text
    python: Annotated[str, Field(pattern=r"^3\.\d+$")]
    disk_gb: Annotated[float, Field(gt=0)]
    needs: tuple[Need, ...] = ()
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    checks: Annotated[tuple[Step, ...], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class Environment:
    """A simulator's environment, built or not.

    Attributes:
        name: of the simulator.
        folder: of its definition.
        path: where it is or will be.
        definition: what it is.
    """

    name: str
    folder: Path
    path: Path
    definition: Definition

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    @property
    def built(self) -> bool:
        """Whether it is whole."""
        return (self.path / BUILT).is_file() and self.python.exists()

    @property
    def current(self) -> bool:
        """Whether it is whole and made by the definition as it is."""
        return self.built and json.loads((self.path / BUILT).read_text()).get("definition") == self.keys()[-1]

    def keys(self) -> list[str]:
        """For the empty environment and then each step: what it and all before it do, in short."""
        digest = hashlib.sha256(self.definition.python.encode())
        keys = [digest.hexdigest()]
        for step in self.definition.steps:
            digest.update(f"\0{step.run}".encode())
            for name in step.files:
                digest.update(b"\0" + (self.folder / name).read_bytes())
            keys.append(digest.hexdigest())
        return keys


def root() -> Path:
    """Directory of all environments."""
    return Path(os.environ.get(VARIABLE) or "~/.local/share/baton/envs").expanduser().absolute()


def names(definitions: Path | None = None) -> list[str]:
    """Simulators whose environment is defined."""
    return sorted(path.parent.name for path in (definitions or DEFINITIONS).glob(f"*/{DEFINITION}"))


def find(name: str, definitions: Path | None = None) -> Environment:
    """The environment of a simulator.

    Args:
        name: of the simulator.
        definitions: where definitions are; None: those of Baton.

    Raises:
        UserError: there is no definition, or it is wrong.
    """
    folder = (definitions or DEFINITIONS) / name
    path = folder / DEFINITION
    if name not in (there := names(definitions)):
        raise UserError(f"env {name!r}: there is no {path}; simulators with one: {', '.join(there) or 'none'}")
    try:
        definition = Definition.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}); put it back") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; put it right") from None
    for step in (*definition.steps, *definition.checks):
        for file in step.files:
            if not (folder / file).is_file():
                raise UserError(f"{path}: step {step.name!r} names {file}, which is not beside it; put it back")
    return Environment(name, folder, root() / name, definition)


def python_of(simulator: str) -> str | None:
    """The interpreter of a simulator's environment, where one was built; looks at no definition."""
    path = root() / simulator
    return str(path / "bin" / "python") if simulator.isidentifier() and (path / BUILT).is_file() else None
