"""Measure what the cloud adds to libvirt's and QEMU's own work, on real guests: RabbitMQ, PostgreSQL, a process per service,
two hosts with a libvirt each.

    floors_guests.py PROGRAMS IMAGE FOLDER     FOLDER is made for broker, database and both libvirts, and removed again;
                                               exit code 1 if a floor is missed

Boot: POST to ACTIVE beside the same by hand (`qemu-img create` of an overlay, `virsh define`, `virsh start` of the same
definition); at most 100 ms more. Live migration with its disk: POST to ACTIVE on the other host beside `qemu-img create`
there and `virsh migrate` of a guest of the same kind; at most 1 s more. Both in turns, medians.
"""

import pathlib
import re
import statistics
import subprocess
import sys
import time
import uuid

from floors import is_gone, sign_in, wait_for
from floors_pieces import ROOT, dev, report

from cloud import Pieces  # in the folder that `floors` names

BOOTS = 15
MIGRATIONS = 5
ADDRESSES = ("127.0.0.11", "127.0.0.12")
RAM_MB = 192


def run(*words):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stdout}")
    return done.stdout


class Hosts(Pieces):
    """In pieces, with hosts between which guests can move."""

    def compute(self, number):
        path, address = super().compute(number), ADDRESSES[number - 1]
        text = path.read_text().replace("[libvirt]\n", f"[libvirt]\nlive_migration_inbound_addr = {address}\n", 1)
        path.write_text(f"{text}[migration]\nlisten = {address}:8790\n")
        return path

    def instances(self, number):
        return self.state / f"compute-{number}" / "instances"


class Bare:
    """A guest like one of the cloud's, of which the cloud knows nothing."""

    def __init__(self, cloud, uris, like, number):
        self.uris, self.at = uris, number
        self.id, self.name = str(uuid.uuid4()), f"bare-{uuid.uuid4().hex[:8]}"
        self.folders = {each: cloud.state / f"bare-{each}" / self.id for each in (1, 2)}
        own = cloud.instances(number) / like
        xml = run("virsh", "-c", uris[number - 1], "dumpxml", "--inactive", like)
        self.disk = next(source for source in re.findall(r"<source file='([^']*)'", xml) if source.startswith(str(own)))
        facts = run("qemu-img", "info", "--force-share", self.disk)
        self.backing = re.search(r"^backing file: (\S+)", facts, re.MULTILINE).group(1)
        self.backing_format = re.search(r"^backing file format: (\S+)", facts, re.MULTILINE).group(1)
        self.bytes = re.search(r"virtual size: .*\((\d+) bytes\)", facts).group(1)
        self.disk_name = pathlib.Path(self.disk).name
        xml = xml.replace(str(own), str(self.folders[number])).replace(like, self.id)
        self.xml = re.sub(r"<name>[^<]*</name>", f"<name>{self.name}</name>", xml, count=1)
        for folder in self.folders.values():
            folder.mkdir(parents=True)

    def boot(self):
        """Seconds until it runs."""
        began, folder = time.perf_counter(), self.folders[self.at]
        overlay = ["-f", "qcow2", "-b", self.backing, "-F", self.backing_format]
        run("qemu-img", "create", "-q", *overlay, folder / self.disk_name, self.bytes)
        (folder / "bare.xml").write_text(self.xml)
        run("virsh", "-q", "-c", self.uris[self.at - 1], "define", folder / "bare.xml")
        run("virsh", "-q", "-c", self.uris[self.at - 1], "start", self.name)
        return time.perf_counter() - began

    def migrate(self):
        """Seconds until it runs on the other host."""
        to, address = 3 - self.at, ADDRESSES[2 - self.at]
        here, there = self.uris[self.at - 1], self.folders[to] / self.disk_name
        began = time.perf_counter()
        run("qemu-img", "create", "-q", "-f", "qcow2", there, self.bytes)
        moved = self.folders[self.at] / "moved.xml"
        xml = run("virsh", "-c", here, "dumpxml", "--migratable", "--security-info", self.name)
        moved.write_text(xml.replace(str(self.folders[self.at]), str(self.folders[to])))
        run("virsh", "-q", "-c", here, "migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--copy-storage-all",
            "--migrate-disks", "vda", "--xml", moved, "--persistent-xml", moved, self.name, f"qemu+tcp://{address}/system",
            f"tcp://{address}")
        (self.folders[self.at] / self.disk_name).unlink()
        self.at = to
        return time.perf_counter() - began

    def said(self):
        log = self.folders[self.at] / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def end(self):
        uri = self.uris[self.at - 1]
        run("virsh", "-q", "-c", uri, "destroy", self.name)
        run("virsh", "-q", "-c", uri, "undefine", "--nvram", self.name)


def request_of(admin, demo, image):
    demo_image = demo.call("POST", "/image/v2/images", {"name": "guest", "disk_format": "qcow2", "container_format": "bare"})[1]["id"]
    demo.connection.request("PUT", f"/image/v2/images/{demo_image}/file", pathlib.Path(image).read_bytes(),
                            {"X-Auth-Token": demo.token, "Content-Type": "application/octet-stream"})
    demo.connection.getresponse().read()
    flavor = {"name": "guest", "ram": RAM_MB, "vcpus": 1, "disk": 1}
    flavor = admin.call("POST", "/compute/v2.1/flavors", {"flavor": flavor})[1]["flavor"]["id"]
    return {"server": {"name": "guest", "imageRef": demo_image, "flavorRef": flavor, "networks": "none"}}


def show(admin, server):
    found = admin.call("GET", f"/compute/v2.1/servers/{server}")[1]["server"]
    if found["status"] == "ERROR":
        raise RuntimeError(f"the server is in ERROR: {found.get('fault')}")
    return found


def host_of(found):
    return int(found["OS-EXT-SRV-ATTR:host"].rpartition("-")[2])


def boot(admin, demo, request):
    """Its id, its host's number, and the seconds from POST to ACTIVE."""
    began = time.perf_counter()
    server = demo.call("POST", "/compute/v2.1/servers", request)[1]["server"]["id"]
    while (found := show(admin, server))["status"] != "ACTIVE":
        time.sleep(0.002)
    return server, host_of(found), time.perf_counter() - began


def delete(api, server):
    api.call("DELETE", f"/compute/v2.1/servers/{server}")
    wait_for(api, server, is_gone)


def live_migrate(admin, server):
    """Seconds from the order until it is ACTIVE on the other host."""
    before, began = host_of(show(admin, server)), time.perf_counter()
    admin.call("POST", f"/compute/v2.1/servers/{server}/action", {"os-migrateLive": {"host": None, "block_migration": "auto"}})
    while True:
        found = show(admin, server)
        if found["status"] == "ACTIVE" and found["OS-EXT-STS:task_state"] is None:
            if host_of(found) == before:
                raise RuntimeError("the server did not move")
            return time.perf_counter() - began
        time.sleep(0.01)


def wait_login(said):
    end = time.monotonic() + 240
    while "login:" not in said():
        if time.monotonic() > end:
            raise RuntimeError("no guest says login:")
        time.sleep(0.5)


def boots(cloud, uris, admin, demo, request):
    delete(admin, boot(admin, demo, request)[0])  # the image gets into the host's cache
    ours, bare = [], []
    for _ in range(BOOTS):
        server, number, took = boot(admin, demo, request)
        ours.append(took)
        other = Bare(cloud, uris, server, number)
        delete(admin, server)
        bare.append(other.boot())
        other.end()
    return ours, bare


def migrations(cloud, uris, admin, demo, request):
    server, number, _ = boot(admin, demo, request)
    other = Bare(cloud, uris, server, number)
    other.boot()
    output = lambda: admin.call("POST", f"/compute/v2.1/servers/{server}/action", {"os-getConsoleOutput": {}})[1]["output"]
    wait_login(output)
    time.sleep(10)  # what a guest still does after its login prompt
    ours, bare = [], []
    for _ in range(MIGRATIONS):
        ours.append(live_migrate(admin, server))
        bare.append(other.migrate())
    other.end()
    delete(admin, server)
    return ours, bare


def tell(what, ours, bare, limit):
    """Whether the floor is held, with a line of figures."""
    more = 1000 * (statistics.median(ours) - statistics.median(bare))
    spread = lambda times: f"{1000 * statistics.median(times):.0f} ms ({1000 * min(times):.0f} to {1000 * max(times):.0f})"
    print(f"{what}: the cloud {spread(ours)}, by hand {spread(bare)}, {len(ours)} of each")
    return (f"{what}: more than by hand, medians", more, limit, "ms", more <= limit)


def main():
    programs, image, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    folder.mkdir(parents=True)
    folder.chmod(0o711)  # the database runs as a user of its own
    cloud = None
    try:
        broker, database = dev("rabbitmq", "start", folder / "rabbitmq"), dev("postgresql", "start", folder / "postgresql")
        uris = [dev("libvirt", "start", folder / f"libvirt-{number}", f"compute-{number}", address)
                for number, address in enumerate(ADDRESSES, 1)]
        cloud = Hosts(programs, "libvirt", broker, database, uris)
        cloud.start()
        admin, demo = sign_in(cloud, "nova"), sign_in(cloud, "nova-demo")
        request = request_of(admin, demo, image)
        rows = [tell("boot", *boots(cloud, uris, admin, demo, request), 100),
                tell("live migration", *migrations(cloud, uris, admin, demo, request), 1000)]
        return 0 if report(rows) else 1
    except Exception:
        if cloud:
            print(cloud.log_tail(), file=sys.stderr)
        raise
    finally:
        if cloud:
            cloud.stop()
        for number in (1, 2):
            subprocess.run([ROOT / "dev/libvirt", "stop", "--guests", folder / f"libvirt-{number}"], check=False)
        for server in ("rabbitmq", "postgresql"):
            subprocess.run([ROOT / "dev" / server, "stop", folder / server], check=False)
        subprocess.run(["rm", "-rf", folder], check=False)
        if cloud:
            cloud.remove()


if __name__ == "__main__":
    sys.exit(main())
