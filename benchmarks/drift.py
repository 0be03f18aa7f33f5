"""Statistics and drift, measured: false alarms, power, delays, real faults, and cost.

    python benchmarks/drift.py [SECTION ...] [--data FOLDER] [--peers FOLDER] [--cost-peers PYTHON]
                               [--write]

Runs the sections (all of them, if none is named) one after another, each a module of its own that
says what it does and can be called alone, and prints a Markdown table for each; with --write they
go into docs/benchmarks.md. All of it takes some hours on two cores: `faults` needs --data, and
`power` and `cost` measure peers beside edgeml where their environments are given.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SECTIONS = {
    "calibration": "tests of rows, independent and correlated, at their nominal level",
    "detectors": "false alarms and delays on windows that depend on each other",
    "power": "the test on counts beside exact tests on the rows",
    "embeddings": "the kernel mean beside the exact MMD",
    "fleet": "1,000 devices over a month, beside p < .05 and its corrections",
    "faults": "photos, sensors and recordings with real faults",
    "cost": "ns an element and bytes a window, beside KLL and whylogs",
    "frames": "µs a frame",
}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Statistics and drift, measured.",
        epilog="\n".join(f"{name}: {what}" for name, what in SECTIONS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--data", type=Path, help="folder with photos, sensors and spoken-digits")
    parser.add_argument("--peers", type=Path, help="folder of environments for `power`")
    parser.add_argument("--cost-peers", help="an interpreter with datasketches and whylogs")
    parser.add_argument("--write", action="store_true", help="put the tables into the docs")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    further = {
        "power": ["--peers", str(options.peers)] if options.peers else [],
        "cost": ["--peers", options.cost_peers] if options.cost_peers else [],
        "faults": ["--data", str(options.data)] if options.data else [],
    }
    failed: list[str] = []
    for name in options.sections or SECTIONS:
        if name == "faults" and not options.data:
            print("faults: left out, since there is no --data", file=sys.stderr)
            continue
        script = Path(__file__).with_name(f"drift_{name}.py")
        arguments = [*further.get(name, []), *(["--write"] if options.write else [])]
        print(f"\n## {name}: {SECTIONS[name]}\n", flush=True)
        if subprocess.run([sys.executable, str(script), *arguments], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
