"""Runs all benchmarks, one after the other, each in its own process: python -m benchmarks [--model bert-base]."""

import dataclasses
import os
import subprocess
import sys
from typing import Literal

import torch
import tyro

from benchmarks import torch_bert


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed."""

    model: Literal["minilm", "bert-base"] = "minilm"
    """the shape of the model; `sizes` times both, and `depth_step` only MiniLM"""


def main(settings: Settings) -> None:
    """Runs all of them. If one fails, the others still run."""
    model = ("--model", settings.model)
    batches = ("32", "128", "256") if torch_bert.DEVICE == "cuda" else ("32",)
    stages = ("fine_tune", "width", "depth")
    programs = [
        *(("steps", "--stage", stage, "--batch", batch, *model) for stage in stages for batch in batches),
        ("forwards", *model),
        ("lengths", *model),
        ("growth", *model),
        ("devices", *model, "--devices", *device_counts()),
        ("sizes",),
        ("deployed", *model),
        ("memory", *model),
        ("depth_step",),
    ]
    large_pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | os.environ
    environments = {"memory": dict(os.environ)}  # large pages count as used memory even if not full
    failed = []
    for name, *arguments in programs:
        print(f"\n## {name} {' '.join(arguments)}\n", flush=True)
        if subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *arguments], env=environments.get(name, large_pages)
        ).returncode:
            failed.append(" ".join((name, *arguments)))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; what they said stands above")


def device_counts() -> list[str]:
    """1, 2, 4 and so on, up to the number of GPUs; a CPU can be split into two devices."""
    there = torch.cuda.device_count() if torch_bert.DEVICE == "cuda" else 2
    return [str(2**i) for i in range(there.bit_length())]


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
