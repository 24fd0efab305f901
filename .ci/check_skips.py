"""Read pytest's JUnit file: tests of torch must have been there, and none skipped for want of it."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET

NO_TORCH = re.compile("torch", re.IGNORECASE)


def main(path: str) -> None:
    """Exit with a message if the torch tests did not run."""
    cases = list(ET.parse(path).getroot().iter("testcase"))
    skipped = [
        f"{case.get('classname')}::{case.get('name')}: {reason.get('message')}"
        for case in cases
        for reason in case.iter("skipped")
        if NO_TORCH.search(reason.get("message") or "")
    ]
    if skipped:
        sys.exit("tests of torch: expected all to run, got skipped\n" + "\n".join(skipped))
    names = [f"{case.get('classname')}.{case.get('name')}" for case in cases if case.find("skipped") is None]
    ran = [name for name in names if re.search(r"torch|monitor", name, re.IGNORECASE)]
    if not ran:
        sys.exit("tests of torch: expected some to run, got none")
    print(f"{len(cases)} tests, {len(ran)} of torch, none of those skipped")


if __name__ == "__main__":
    main(sys.argv[1])
