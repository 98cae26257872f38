"""Hold what `cargo bench -p nova-benches --bench console` measured to the floors of a proxy of consoles.

    floors_console.py PATH/target/criterion        exit code 1 if a floor is missed

A small piece through the proxy and back at most 0.3 ms longer than without it (median), large ones at 400 MB/s at least, and
at most 100 KiB of memory for an idle session.
"""

import json
import pathlib
import sys

SMALL, LARGE = 16, 8 << 20


def median_ns(folder, name, size):
    path = folder / "console" / name / str(size) / "new" / "estimates.json"
    return json.loads(path.read_text())["median"]["point_estimate"]


def main():
    folder = pathlib.Path(sys.argv[1])
    added = (median_ns(folder, "relay", SMALL) - median_ns(folder, "direct", SMALL)) / 1e6
    speed = LARGE / median_ns(folder, "relay", LARGE) * 1e3
    sessions = json.loads((folder / "console" / "sessions.json").read_text())
    rows = [
        ("a key and what it shows, added by the proxy (median)", added, "0.3", "ms", added <= 0.3),
        (f"large updates through the proxy ({LARGE >> 20} MiB)", speed, "400", "MB/s", speed >= 400),
        (f"memory of an idle session ({sessions['idle']} of them)", sessions["kib_per_idle"], "100", "KiB",
         sessions["kib_per_idle"] <= 100),
    ]
    print(f"\n{'':54} {'measured':>10} {'floor':>10}")
    for name, value, floor, unit, good in rows:
        print(f"{name:54} {value:>9.3f} {unit:<4} {floor:>5} {unit:<4} {'ok' if good else 'MISSED'}")
    print(f"memory of a busy session or one that does not read ({sessions['busy']} and {sessions['slow']}): "
          f"{sessions['kib_per_busy']:.0f} KiB; the busy ones together: {sessions['mib_per_second']:.0f} MiB/s")
    return 0 if all(row[4] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
