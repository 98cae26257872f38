"""Measure the volume service of nova-all against its floors: files over NBD, SQLite on disk.

    floors_volumes.py FOLDER        with the programs there; exit code 1 if a floor is missed

Create an empty volume at most 50 ms (median). With 1,000 volumes on the host: a page of them at most 20 ms (median of 20),
from the start of the process to a volume that it made at most 2 s. What passes an export is at least 0.9 of what passes a
storage daemon that was started by hand with the same options, over the same file.
"""

import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "clients"))

from cloud import AllInOne, free_port  # noqa: E402
from floors import Api, report, sign_in  # noqa: E402

VOLUMES = 1000
TIMED = 50
PAGES = 20
ROUNDS = 5
REQUESTS = 3000
KIB = 256
HOST = "bench"


def call(api, method, path, body=None):
    return api.call(method, f"/volume/v3{path}", body)[1]


def create(api, wait=True):
    """A volume of 1 GiB, and the milliseconds until it was available."""
    began = time.perf_counter()
    volume = call(api, "POST", "/volumes", {"volume": {"size": 1}})["volume"]["id"]
    status = "creating"
    while wait and status == "creating":
        status = call(api, "GET", f"/volumes/{volume}")["volume"]["status"]
    if wait and status != "available":
        raise RuntimeError(f"the volume is {status}")
    return volume, (time.perf_counter() - began) * 1000


def settled(api):
    while call(api, "GET", "/volumes?status=creating&limit=1")["volumes"]:
        time.sleep(0.05)


def listed(api, path):
    times = []
    for _ in range(PAGES):
        began = time.perf_counter()
        found = call(api, "GET", path)["volumes"]
        times.append((time.perf_counter() - began) * 1000)
        if len(found) != int(path.rpartition("=")[2]):
            raise RuntimeError(f"{path}: {len(found)} volumes")
    return statistics.median(times)


def connect(api, volume):
    """How a host comes to a volume, and the milliseconds until it was told."""
    attachment = call(api, "POST", "/attachments", {"attachment": {"volume_uuid": volume}})["attachment"]["id"]
    began = time.perf_counter()
    body = {"attachment": {"connector": {"host": HOST}}}
    info = call(api, "PUT", f"/attachments/{attachment}", body)["attachment"]["connection_info"]
    return info, (time.perf_counter() - began) * 1000


def throughput(port, export, write):
    """MiB a second of `qemu-img bench`, which keeps 16 requests on their way."""
    size = str(KIB * 1024)
    words = ["qemu-img", "bench", "-f", "raw", "-c", str(REQUESTS), "-d", "16", "-s", size, "-S", size]
    words += (["-w"] if write else []) + [f"nbd://127.0.0.1:{port}/{export}"]
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return REQUESTS * KIB / 1024 / (time.perf_counter() - began)


def by_hand(state, file):
    """A storage daemon that serves the file as the export `e`; its port, and its process id."""
    port, pid = free_port(), state / "hand.pid"
    subprocess.run(
        ["qemu-storage-daemon", "--blockdev", f"driver=raw,node-name=v,file.driver=file,file.filename={file},file.locking=off",
         "--nbd-server", f"addr.type=inet,addr.host=127.0.0.1,addr.port={port},max-connections=0",
         "--export", "type=nbd,id=e,node-name=v,name=e,writable=on", "--pidfile", str(pid), "--daemonize"], check=True)
    return port, int(pid.read_text())


def compare(state, volume, info):
    """Ours and the hand's, the best of several rounds by turns: rows for reading and writing."""
    port, pid = by_hand(state, state / "volumes" / f"volume-{volume}")
    rows = []
    try:
        for write in (True, False):
            ours, hands = [], []
            for _ in range(ROUNDS):
                hands.append(throughput(port, "e", write))
                ours.append(throughput(info["port"], info["export"], write))
            ratio = max(ours) / max(hands)
            what = "written" if write else "read"
            print(f"{what}: by hand {max(hands):.0f} MiB/s, ours {max(ours):.0f} MiB/s")
            rows.append((f"{what} over NBD, to a daemon started by hand", ratio * 100, 90, "%", ratio >= 0.9))
    finally:
        os.kill(pid, signal.SIGKILL)
    return rows


def end_daemons(state):
    for pid in (state / "volume-run").glob("*.pid"):
        number = int(pid.read_text())
        if str(pid).encode() in pathlib.Path(f"/proc/{number}/cmdline").read_bytes():
            os.kill(number, signal.SIGKILL)


def main():
    Api.more = {"OpenStack-API-Version": "volume 3.71"}
    cloud = AllInOne(sys.argv[1], "fake")
    cloud.conf = cloud.write("nova.conf", DEFAULT={"state_path": cloud.state, "compute_driver": "fake"},
                             volume={"quota_volumes": -1, "quota_gigabytes": -1},
                             volume_driver={"name": "nbd", "max_over_subscription_ratio": 1000, "nbd_first_port": free_port()})
    try:
        cloud.start()
        demo = sign_in(cloud, "nova-demo")
        first, _ = create(demo)
        made = [create(demo)[1] for _ in range(TIMED)]
        while len(made) + 1 < VOLUMES:
            made.append(create(demo, wait=False)[1])
        settled(demo)
        brief, detail = listed(demo, f"/volumes?limit={VOLUMES}"), listed(demo, f"/volumes/detail?limit={VOLUMES}")
        page = listed(demo, "/volumes/detail?limit=100")
        info, opened = connect(demo, first)
        more = [connect(demo, create(demo)[0])[1] for _ in range(20)]
        rates = compare(cloud.state, first, info)
        cloud.stop()
        began = time.perf_counter()
        cloud.start()
        demo = sign_in(cloud, "nova-demo")
        create(demo)
        start = (time.perf_counter() - began) * 1000
        create_ms = statistics.median(made[:TIMED])
        good = report([
            (f"POST of an empty volume to available, median of {TIMED}", create_ms, 50, "ms", create_ms <= 50),
            (f"page of 100 volumes with details, of {VOLUMES}", page, 20, "ms", page <= 20),
            (f"all {VOLUMES} volumes in one page, names and ids", brief, 20, "ms", brief <= 20),
            (f"start with {VOLUMES} volumes, to the next one made", start, 2000, "ms", start <= 2000),
            *rates,
        ])
        print(f"all {VOLUMES} volumes in one page with details: {detail:.1f} ms")
        print(f"a host is let in: the first time {opened:.1f} ms, further volumes {statistics.median(more):.1f} ms")
        return 0 if good else 1
    finally:
        cloud.stop()
        end_daemons(cloud.state)
        cloud.remove()


if __name__ == "__main__":
    sys.exit(main())
