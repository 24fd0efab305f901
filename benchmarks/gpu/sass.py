"""Compile the CUDA kernels and report registers, spills, shared memory and instructions of the hot loops.

``python benchmarks/gpu/sass.py`` compiles for every architecture, counts and writes ``SASS.md`` beside this
file. ``python benchmarks/gpu/sass.py --check sm_90`` only asks ptxas, needs no cuobjdump and writes nothing.
Either way the exit status is 1 if a hot kernel spills a register. No GPU is needed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parent.parent / "csrc" / "cuda" / "kernels.cu"
ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
MODES = ["kAll", "kWindow", "kNone"]
HOT = {"kAll": 4, "kWindow": 7}  # of 512 threads, without float64; the bits that have loops of their own
ELEMENTS = 64  # that a thread takes in one trip of a hot loop
PIPES = ["alu", "fma", "imad", "half2", "lsu", "tensor", "fp64", "branch", "uniform", "other"]
LSU = ("LDG", "STG", "LDS", "STS", "LDL", "STL", "LD", "ST", "ATOMS", "ATOMG", "RED", "REDG", "SHFL")
BRANCHES = ("BRA", "BSSY", "BSYNC", "EXIT", "WARPSYNC", "NOP", "CALL", "RET", "BREAK", "BRX")
COUNTS = ("ATOMS.POPC.INC", "ATOMS.ADD")  # the second of sm_75, which has no other
LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?);")


@dataclass
class Kernel:
    """What ptxas says about one kernel."""

    mangled: str
    registers: int = 0
    stack: int = 0
    spilled: int = 0  # bytes, stores and loads
    static_shared: int = 0

    @property
    def arguments(self) -> tuple[int, str, bool] | None:
        """Threads, mode of the histogram and whether float64 is taken; None if it is not the pass."""
        found = re.search(r"pass_kernelILi(\d+)E\w*?7BinModeE(\d)ELb([01])E", self.mangled)
        return (int(found[1]), MODES[int(found[2])], found[3] == "1") if found else None

    @property
    def name(self) -> str:
        if self.arguments is None:
            return "finish, float64" if "Lb1E" in self.mangled else "finish"
        lanes, mode, wide = self.arguments
        return f"pass<{lanes}, {mode}>" + (", float64" if wide else "")

    @property
    def hot(self) -> bool:
        return (
            self.arguments is not None
            and self.arguments[0] == 512
            and self.arguments[1] in HOT
            and not self.arguments[2]
        )


@dataclass
class Instruction:
    """One instruction of the disassembly."""

    address: int
    predicate: str
    operation: str
    operands: str

    @property
    def base(self) -> str:
        return self.operation.split(".")[0]


@dataclass
class Loop:
    """The way through a hot loop on which every value takes the fast road."""

    dtype: str
    instructions: list[Instruction]


def find(tool: str) -> str | None:
    """Return a program of the CUDA toolkit: on PATH, in CUDA_HOME or in NVIDIA's Python packages."""
    on_path = shutil.which(tool)
    if on_path:
        return on_path
    roots = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"]
    roots += sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("*/bin"), reverse=True)
    return next((str(root / tool) for root in roots if (root / tool).is_file()), None)


def compiled(nvcc: str, architecture: str, cubin: Path, *defined: str) -> list[Kernel]:
    """Compile the kernels for one architecture and return what ptxas says."""
    command = [
        nvcc,
        "-std=c++17",
        "-O3",
        "-cubin",
        f"-arch={architecture}",
        "-Xptxas",
        "-v",
        "-o",
        str(cubin),
        *defined,
    ]
    result = subprocess.run([*command, str(KERNELS)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"nvcc failed for {architecture}:\n{result.stdout}{result.stderr}")
    kernels: list[Kernel] = []
    for line in (result.stdout + result.stderr).splitlines():
        entry = re.search(r"Compiling entry function '(\w+)'", line)
        if entry:
            kernels.append(Kernel(entry[1]))
        stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if stack and kernels:
            kernels[-1].stack = int(stack[1])
            kernels[-1].spilled = int(stack[2]) + int(stack[3])
        used = re.search(r"Used (\d+) registers", line)
        if used and kernels:
            kernels[-1].registers = int(used[1])
            shared = re.search(r"(\d+) bytes smem", line)
            kernels[-1].static_shared = int(shared[1]) if shared else 0
    return kernels


def disassembled(cuobjdump: str, cubin: Path) -> dict[str, list[Instruction]]:
    """Return the instructions of every kernel."""
    result = subprocess.run([cuobjdump, "-sass", str(cubin)], capture_output=True, text=True, check=True)
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in result.stdout.splitlines():
        function = re.match(r"\s*Function : (\S+)", line)
        if function:
            current = functions.setdefault(function[1], [])
        found = LINE.match(line)
        if found:
            current.append(Instruction(int(found[1], 16), found[2] or "", found[3], found[4]))
    return functions


def target_of(instruction: Instruction) -> int | None:
    """Return the address that a branch goes to, or that BSSY names."""
    found = re.findall(r"0x([0-9a-f]+)", instruction.operands)
    return int(found[-1], 16) if found else None


def loops_of(code: list[Instruction]) -> Iterator[list[Instruction]]:
    """Yield the bodies of the loops that count 64 values."""
    place = {instruction.address: i for i, instruction in enumerate(code)}
    for last, instruction in enumerate(code):
        target = target_of(instruction) if instruction.base == "BRA" else None
        if target is None or target > instruction.address or target not in place:
            continue
        body = code[place[target] : last + 1]
        if sum(i.operation.startswith(COUNTS) for i in body) == ELEMENTS:
            yield body


def fast_road(body: list[Instruction]) -> list[Instruction]:
    """Return the way through a loop that counts every value, with all mma, and of those ways the shortest.

    Cold code lies behind forward branches: it is what a branch leads around without missing a count, or what
    a branch out of the loop leads to.
    """
    place = {instruction.address: i for i, instruction in enumerate(body)}
    end = len(body)
    worst = (-1, 0, 0)
    best: list[tuple[int, int, int]] = [worst] * (end + 1)  # counts, minus instructions, next
    best[end] = (0, 0, end)
    for i in range(end - 1, -1, -1):
        instruction = body[i]
        after = [i + 1]
        if instruction.base == "BRA" and i != end - 1:
            target = place.get(target_of(instruction) or -1, -1)
            conditional = (
                bool(instruction.predicate)
                or instruction.operation == "BRA.DIV"  # of warps whose lanes have not met
                or re.match(r"!?U?P\d", instruction.operands) is not None
            )
            after = ([i + 1] if conditional else []) + ([target] if target > i else [])
        elif instruction.base == "EXIT" and not instruction.predicate:
            after = []
        counts = instruction.operation.startswith((*COUNTS, "HMMA"))
        for j in after:
            if best[j] != worst:
                best[i] = max(best[i], (best[j][0] + counts, best[j][1] - 1, j))
    road, i = [], 0
    while i < end and best[i] != worst:
        road.append(body[i])
        i = best[i][2]
    return road


def hot_loops(code: list[Instruction]) -> list[Loop]:
    """Return the fast roads of a pass kernel, each with the dtype that its instructions give away."""
    found = []
    for body in loops_of(code):
        loads = sum(i.base == "LDG" and ".128" in i.operation for i in body)
        halves = sum(i.base == "HADD2" and ".F32" in i.operation for i in body)
        dtype = "float32" if loads == 16 else "float16" if halves >= ELEMENTS else "bfloat16"
        found.append(Loop(dtype, fast_road(body)))
    return found


def pipe_of(instruction: Instruction) -> str:
    """Return which unit an instruction occupies."""
    base = instruction.base
    pipes = {
        "FFMA": "fma",
        "FADD": "fma",
        "FMUL": "fma",
        "HMUL2": "half2",
        "HADD2": "half2",
        "HFMA2": "half2",
    }
    if base in pipes:
        return pipes[base]
    if base in LSU:
        return "lsu"
    if base in BRANCHES:
        return "branch"
    if base in ("DADD", "DMUL", "DFMA"):
        return "fp64"
    if base in ("F2F", "POPC", "S2R", "CS2R", "MUFU"):
        return "other"
    if base.startswith(("HMMA", "IMMA")):
        return "tensor"
    if base.startswith("IMAD"):
        return "imad"
    return "uniform" if base.startswith("U") or base in ("R2UR", "S2UR") else "alu"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]


def counted(architecture: str, kernel: Kernel, loops: list[Loop]) -> Iterator[list[str]]:
    """Yield the rows of the hot loops of a kernel: of every dtype those with the usual bits."""
    assert kernel.arguments is not None
    mode = kernel.arguments[1]
    for dtype in ("float32", "float16", "bfloat16"):
        ways = sorted(
            (loop for loop in loops if loop.dtype == dtype), key=lambda loop: len(loop.instructions)
        )
        for loop in ways[: 1 if dtype == "float16" else 2]:  # the rest is for other bits
            pipes = Counter(pipe_of(i) for i in loop.instructions)
            shares = [f"{pipes[pipe] / ELEMENTS:.2f}" if pipes[pipe] else "" for pipe in PIPES]
            bits = f"{mode}, {HOT[mode]} bits"
            scale = "any" if loop is not ways[0] else "1"
            yield [architecture, bits, dtype, scale, f"{len(loop.instructions) / ELEMENTS:.1f}", *shares]


EXPLANATION = """\
An element is one of the 64 that a thread takes in a trip of the loop over octets. Counted is, in the
disassembly of the shipped kernel, every instruction on the way through that loop on which all values are
finite, none is zero and all go with the scale: it is the way that keeps all 64 `ATOMS`, and of those
ways the shortest. Loops belong to float32 by their 16 loads of 128 bits, to float16 by its conversions, else
to bfloat16. Scale 1 is of tensors whose largest magnitude lies between 2^-24 and 2^28, "any" of all others.
"""


TENSOR_SWITCH = "-DGRADTAIL_TENSOR_SUMS=1"
TENSOR = """\
`csrc/cuda/tensor_sums.cuh` sums S1 of bfloat16 at scale 1 on tensor cores. It is off on every architecture
until it has been verified on one; this is what is compiled with `-DGRADTAIL_TENSOR_SUMS=1`, counted as above,
and beside it what is shipped.
"""


def on_tensor_cores(
    nvcc: str, cuobjdump: str, architecture: str, folder: str, shipped: list[list[str]]
) -> Iterator[list[str]]:
    """Yield the rows of the hot kernels with sums on tensor cores, each beside the row of ``shipped``."""
    cubin = Path(folder, f"{architecture}-tensor.cubin")
    kernels = compiled(nvcc, architecture, cubin, TENSOR_SWITCH)
    code = disassembled(cuobjdump, cubin)
    for kernel in sorted((kernel for kernel in kernels if kernel.hot), key=lambda kernel: kernel.name):
        for row in counted(architecture, kernel, hot_loops(code[kernel.mangled])):
            if row[2:4] == ["bfloat16", "1"]:
                before = next(other[4] for other in shipped if other[:4] == row[:4])
                yield [*row[:2], before, *row[4:], str(kernel.registers), str(kernel.spilled)]


SHARED = {  # KiB of shared memory a block and a multiprocessor may have, and threads (CUDA programming guide)
    "sm_75": (64, 64, 1024),
    "sm_80": (163, 164, 2048),
    "sm_86": (99, 100, 1536),
    "sm_89": (99, 100, 1536),
    "sm_90": (227, 228, 2048),
    "sm_100": (227, 228, 2048),
    "sm_120": (99, 100, 1536),
}


def launches(architectures: list[str]) -> list[str]:
    """Return how the first kernel is launched on each; nothing where gradtail has no CUDA built in."""
    core = importlib.import_module("gradtail.native").core
    if not hasattr(core, "launch_shape"):
        return []
    rows = []
    for architecture in architectures:
        if architecture not in SHARED:
            continue
        block, whole, threads = SHARED[architecture]
        for bits, wide in ((4, False), (7, False), (4, True)):
            shape = core.launch_shape(1, block << 10, whole << 10, threads, bits, wide)
            rows.append(
                [
                    architecture, f"{bits}", "float64" if wide else "", shape["bins"],
                    f"{shape['shared_bytes'] / 1024:.1f}", str(shape["teams"]),
                ]
            )  # fmt: skip
    head = ["arch", "bits", "", "histogram", "shared memory, KiB a team", "teams a multiprocessor"]
    return ["", "## Shared memory", "", "Dynamic, of teams of 512 threads.", "", *table(head, rows)]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "architectures", nargs="*", default=ARCHITECTURES, help="sm_75 ... sm_120; default: all"
    )
    parser.add_argument("--check", action="store_true", help="registers and spills only; write nothing")
    parser.add_argument("--output", type=Path, default=HERE / "SASS.md", help="the table that is written")
    return parser.parse_args()


def main() -> int:
    """Run the command line."""
    arguments = parse()
    nvcc, cuobjdump = find("nvcc"), find("cuobjdump")
    if nvcc is None:
        raise SystemExit(
            "nvcc: expected it on PATH, in CUDA_HOME/bin or in NVIDIA's Python packages, got none"
        )
    if cuobjdump is None and not arguments.check:
        raise SystemExit(
            "cuobjdump: expected it on PATH or in NVIDIA's Python packages, got none; use --check"
        )
    registers: list[list[str]] = []
    instructions: list[list[str]] = []
    tensor: list[list[str]] = []
    spilled: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for architecture in arguments.architectures:
            cubin = Path(folder, f"{architecture}.cubin")
            kernels = compiled(nvcc, architecture, cubin)
            code = {} if arguments.check or cuobjdump is None else disassembled(cuobjdump, cubin)
            for kernel in sorted(kernels, key=lambda kernel: (not kernel.hot, kernel.name)):
                row = [architecture, kernel.name, "hot" if kernel.hot else ""]
                row += [
                    str(n) for n in (kernel.registers, kernel.stack, kernel.spilled, kernel.static_shared)
                ]
                registers.append(row)
                print(*row)
                if kernel.hot and kernel.spilled:
                    spilled.append(f"{architecture} {kernel.name}: {kernel.spilled} bytes")
                if kernel.hot and kernel.mangled in code:
                    instructions += counted(architecture, kernel, hot_loops(code[kernel.mangled]))
            if cuobjdump is not None and not arguments.check and architecture != "sm_75":
                tensor += on_tensor_cores(nvcc, cuobjdump, architecture, folder, instructions)
    if not arguments.check:
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        release = re.search(r"V([\d.]+)", version)
        lines = ["# Registers and instructions of the CUDA kernels", ""]
        day = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"
        made = f"nvcc {release[1] if release else '?'}, {day}, `python benchmarks/gpu/sass.py`."
        lines += [f"{made} Nothing here was run."]
        lines += ["", "## Instructions per element of the hot loops", "", EXPLANATION]
        lines += table(["arch", "histogram", "dtype", "scale", "all", *PIPES], instructions)
        if tensor:
            lines += ["", "## Sums on tensor cores", "", TENSOR]
            lines += table(["arch", "histogram", "shipped", "all", *PIPES, "registers", "spills"], tensor)
        lines += ["", "## Registers and spills", ""]
        lines += ["Bytes; spills are stores and loads. Shared memory is dynamic but for the last column."]
        lines += [
            "",
            *table(["arch", "kernel", "", "registers", "stack", "spills", "static shared"], registers),
        ]
        lines += launches(arguments.architectures)
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in spilled:
        print(f"spilled: {line}", file=sys.stderr)
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
