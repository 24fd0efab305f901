"""Read pytest's JUnit file: tests of torch and of the kernels must have run, and none been skipped."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET

MISSING = re.compile("torch|simulated device", re.IGNORECASE)


def main(path: str) -> None:
    """Exit with a message if the torch tests did not run."""
    cases = list(ET.parse(path).getroot().iter("testcase"))
    skipped = [
        f"{case.get('classname')}::{case.get('name')}: {reason.get('message')}"
        for case in cases
        for reason in case.iter("skipped")
        if MISSING.search(reason.get("message") or "")
    ]
    if skipped:
        sys.exit("tests of torch and of kernels: expected all to run, got skipped\n" + "\n".join(skipped))
    names = [f"{case.get('classname')}.{case.get('name')}" for case in cases if case.find("skipped") is None]
    ran = [name for name in names if re.search(r"torch|monitor", name, re.IGNORECASE)]
    kernels = [name for name in names if "test_kernels" in name]
    if not ran or not kernels:
        sys.exit(f"expected tests of torch and of kernels to run, got {len(ran)} and {len(kernels)}")
    print(f"{len(cases)} tests, {len(ran)} of torch, none of those skipped")


if __name__ == "__main__":
    main(sys.argv[1])
