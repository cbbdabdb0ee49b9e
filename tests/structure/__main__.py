"""Prints the structure of a checkout in numbers: ``python -m tests.structure [ROOT]``."""

from __future__ import annotations

import sys
from pathlib import Path

from .source_tree import ROOT, SourceTree


def main() -> None:
    """Print one line for each number, then the places behind those that should be zero."""
    tree = SourceTree(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    upward, circles, private = tree.upward(), tree.circles(), tree.private()
    homonyms, repeated = tree.homonyms(), tree.repeated()
    longest = [each for each in tree.longest() if each.lines > 400]
    folders = tree.folders()
    fullest = max(folders, key=lambda each: folders[each])
    print(f"modules {len(tree.modules)}, folders {len(folders)}")
    print(f"fullest folder {fullest} with {folders[fullest]} modules")
    print(f"arrows up {len(upward)}, circles {len(circles)}, private imports {len(private)}")
    print(f"class names with two meanings {len(homonyms)}")
    print(f"pairs of files that share six lines or more {len(repeated)}")
    print(f"files above 400 lines {len(longest)}")
    for folder, count in folders.items():
        print(f"  {count:3} {folder}")
    for name, other in [*upward, *private]:
        print(f"  up or private: {name} -> {other}")
    for circle in circles:
        print(f"  circle: {', '.join(circle)}")
    for name, places in homonyms.items():
        print(f"  {name}: {', '.join(places)}")
    for pair in repeated:
        print(f"  repeated: {' ~ '.join(pair)}")
    for each in longest:
        print(f"  {each.lines} lines: {each.path}")


if __name__ == "__main__":
    main()
