"""What has been computed once: in memory, with the package, or in a cache folder.

The folder is ``$MOOC_DA_CACHE``, else ``~/.cache/mooc_da``; ``MOOC_DA_CACHE=none`` reads and keeps no file. A file is
named by a hash of the configuration; one that is damaged or of another configuration is recomputed; a folder that
cannot be written is done without.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .config import Experiment

FORMAT = 1  # to be raised when the code, not the configuration, changes what a stage gives
SHIPPED = Path(__file__).with_name("trained")  # networks of the default experiment, so that 3_hybrid opens at once
memory: dict[tuple[str, str], dict] = {}  # the stages of this session


def cached(stage: str, cfg: Experiment, compute: Callable[[], dict], device: str = "cpu") -> dict:
    """The tensors of a stage, from memory, the shipped files, the cache folder or else ``compute``."""
    name, folder = file_name(stage, cfg), cache_folder()
    if (name, device) not in memory:
        values = read(name, [] if folder is None else [SHIPPED, folder], device)
        if values is None:
            values = compute()
            if folder is not None:
                store(values, folder / name)
        memory[name, device] = values
    return memory[name, device]


def read(name: str, folders: Sequence[Path], device: str) -> dict | None:
    """The tensors of the file of that name in the first folder that has it; None if there is none that is sound."""
    for path in (folder / name for folder in folders):
        try:
            saved = torch.load(path, weights_only=True, map_location=device)
            if saved["name"] != name:
                raise ValueError("of another configuration")
            return saved["values"]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except Exception as error:  # a damaged file fails in many ways, and all have one remedy
            warnings.warn(f"{path} is damaged ({type(error).__name__}): recomputing it.", stacklevel=4)
    return None


def file_name(stage: str, cfg: Experiment) -> str:
    """A name that changes with the configuration."""
    numbers = json.dumps([FORMAT, stage, cfg.as_dict()], sort_keys=True)
    return f"{stage}-{hashlib.sha256(numbers.encode()).hexdigest()[:16]}.pt"


def cache_folder() -> Path | None:
    """``$MOOC_DA_CACHE``, else ``~/.cache/mooc_da``; None for "none"."""
    folder = os.environ.get("MOOC_DA_CACHE", "")
    return None if folder == "none" else Path(folder or Path.home() / ".cache" / "mooc_da")


def store(values: dict, path: Path) -> None:
    """Write tensors so that no reader ever sees half a file; warn and go on if the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            torch.save({"name": path.name, "values": values}, part)
        os.chmod(part.name, 0o644)
        os.replace(part.name, path)
    except OSError as error:
        warnings.warn(
            f"The cache folder {path.parent} cannot be written ({error.strerror}): results are not kept. "
            "Set MOOC_DA_CACHE to a folder of yours to keep them.",
            stacklevel=4,
        )
