"""``make bench``: compare opsd with the bare tools in one run, and print ratios."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bench import dump, kube, nodeloss, report, share, ssh, startup
from tests.rig.parts import put_cache_on_path

BENCHES = {
    "startup": startup.lines,
    "dump": dump.lines,
    "share": share.lines,
    "kube": kube.lines,
    "nodes": nodeloss.lines,
    "ssh": ssh.lines,
}


def main() -> int:
    """Run the named benches, or all; 0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("benches", nargs="*", choices=[*BENCHES, []], metavar="BENCH")
    chosen = parser.parse_args().benches or list(BENCHES)
    put_cache_on_path()
    results: list[report.Line] = []
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="opsd-bench-") as place:
            Path(place).chmod(0o755)
            results.extend(BENCHES[name](Path(place)))
        report.show(results)
    return 0 if all(line.met for line in results) else 1


if __name__ == "__main__":
    sys.exit(main())
