# SPDX-License-Identifier: BSD-3-Clause
"""The command line of soak.py and crowd.py, which try something for as long as one likes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import facts


def main(try_for: Callable[[Path, float, int], dict[str, Any]], description: str | None, minutes: float) -> int:
    """Try in a folder, for some minutes, from a seed; print what was found. 1 if anything is `wrong`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    parser.add_argument("--out", type=Path, help="write the counts to this .json")
    options = parser.parse_args()
    found = try_for(options.folder.absolute(), options.minutes, options.seed)
    text = json.dumps({**facts(), "minutes": options.minutes, **found}, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return 1 if found["wrong"] else 0
