"""Check that the gradtail that is installed here was really built, and works."""

from __future__ import annotations

import argparse
import sys

import numpy as np

import gradtail
from gradtail.build import build_info, format_build_info


def main() -> None:
    """Exit with a message if this install is not what it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda", action="store_true", help="CUDA must be compiled in")
    parser.add_argument("--pure", action="store_true", help="there must be no native extension")
    options = parser.parse_args()

    print(format_build_info())
    info = build_info()
    if info["native"] is options.pure:
        sys.exit(f"native: expected {not options.pure}, got {info['native']} ({info['reason']})")
    if options.cuda and not info["cuda"]:
        sys.exit(f"cuda: expected True, got False ({info['reason']})")
    if not info["devices"] and not info["reason"]:
        sys.exit("reason: expected why there is no GPU, got nothing")

    summary = gradtail.summarize(np.array([3.0, -4.0, np.nan], np.float32))
    if (summary.count, summary.norm, summary.nan) != (2, 5.0, 1):
        sys.exit(f"summary: expected 2 values of norm 5 and a NaN, got {summary}")


if __name__ == "__main__":
    main()
