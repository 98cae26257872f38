"""Measure the cloud in pieces against its speed floors: RabbitMQ, PostgreSQL, a process per service, four fake hosts.

    floors_pieces.py FOLDER        FOLDER holds nova-api, nova-scheduler, …; exit code 1 if a floor is missed

100 servers, 10 at a time: at least 50 boots a second, POST to ACTIVE at most 200 ms (median), at most 30 ms of CPU per
boot over all processes, broker and database included. Then 1,000 boots more, counted: at most 8 messages at the broker
and 3 commits per boot beyond the idle rate.
"""

import concurrent.futures
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "dev"))

from floors import Api, build_request, is_gone, sign_in  # noqa: E402
from cloud import free_port  # noqa: E402, in the folder that `floors` names

BOOTS = 100
COUNTED = 1000
WORKERS = 10
HOSTS = 4
POLL = 0.01
SERVICES = ["nova-api", "nova-scheduler", "nova-conductor", "nova-compute"]
TICK = os.sysconf("SC_CLK_TCK")


def dev(script, *arguments):
    done = subprocess.run([ROOT / "dev" / script, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


class Pieces:
    """The services, their broker and their database, in a folder of their own."""

    def __init__(self, programs, hosts=HOSTS):
        self.programs, self.processes, self.hosts = pathlib.Path(programs), {}, hosts
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="nova-floors."))
        self.folder.chmod(0o711)  # the database runs as a user of its own
        self.port, self.pages = free_port(), {name: free_port() for name in SERVICES[1:]}
        self.clouds_yaml = self.folder / "state/clouds.yaml"
        self.conf, self.host_conf = self.folder / "nova.conf", self.folder / "host.conf"

    def start(self):
        broker = dev("rabbitmq", "start", str(self.folder / "rabbitmq"))
        database = dev("postgresql", "start", str(self.folder / "postgresql"))
        listen = f"[api]\nlisten = 127.0.0.1:{self.port}\n"
        quota = "[quota]\ninstances = -1\ncores = -1\nram = -1\n"
        self.conf.write_text(f"[DEFAULT]\nhost = controller\nstate_path = {self.folder}/state\ntransport_url = {broker}\n"
                             f"[database]\nconnection = {database}\n{listen}{quota}")
        self.host_conf.write_text(f"[DEFAULT]\nhost = host\nstate_path = {self.folder}/host\ntransport_url = {broker}\n"
                                  f"initial_cpu_allocation_ratio = 16\n[fake]\nhosts = {self.hosts}\n{listen}")
        subprocess.run([self.programs / "nova-manage", "--config-file", self.conf, "db", "sync"], check=True)
        for name in SERVICES:
            conf = self.host_conf if name == "nova-compute" else self.conf
            page = [] if name == "nova-api" else ["--set", f"health.listen=127.0.0.1:{self.pages[name]}"]
            log = (self.folder / f"{name}.log").open("w")
            self.processes[name] = subprocess.Popen([self.programs / name, "--config-file", conf, *page], stdout=log, stderr=log)
        for name in SERVICES:
            self.wait_healthy(name)

    def wait_healthy(self, name):
        port, end = self.pages.get(name, self.port), time.monotonic() + 60 + self.hosts / 10
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"{name} is not healthy in time; its log is {self.folder}/{name}.log")

    def stop(self):
        for name in reversed(SERVICES):
            if name in self.processes:
                self.processes[name].terminate()
        for process in self.processes.values():
            process.wait()
        dev("rabbitmq", "stop", str(self.folder / "rabbitmq"))
        dev("postgresql", "stop", str(self.folder / "postgresql"))
        shutil.rmtree(self.folder)

    def published(self):
        return int(dev("rabbitmq", "published", str(self.folder / "rabbitmq")))

    def commits(self):
        """Durable transactions, as the services count them: the database's own counter has the readings in it."""
        total = 0
        for name in SERVICES:
            port = self.pages.get(name, self.port)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                lines = page.read().decode().splitlines()
            total += sum(int(float(line.split()[1])) for line in lines if line.startswith("nova_store_commits_total "))
        return total

    def cpu(self):
        """Seconds of CPU so far: by part."""
        parts = {name: seconds(process.pid) for name, process in self.processes.items()}
        parts["RabbitMQ"] = sum(seconds(pid) for pid in processes_of(self.folder / "rabbitmq"))
        parts["PostgreSQL"] = sum(seconds(pid) for pid in processes_of(self.folder / "postgresql"))
        return parts


def seconds(pid):
    """CPU of a process and of its ended children."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15]) / TICK


def processes_of(folder):
    """Those that name the folder on their command line or run in it, and all their children."""
    parents, roots = {}, set()
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            named = str(folder).encode() in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if named:
            roots.add(int(entry.name))
    found = set(roots)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found - {os.getpid()}
        found |= more


def boot(port, token, request):
    """Milliseconds from POST to ACTIVE, and the server."""
    api = Api(port, token)
    began = time.perf_counter()
    server = api.call("POST", "/compute/v2.1/servers", request)[1]["server"]["id"]
    while True:
        body = api.call("GET", f"/compute/v2.1/servers/{server}")[1]["server"]
        if body["status"] == "ACTIVE":
            return (time.perf_counter() - began) * 1000, server
        if body["status"] == "ERROR":
            raise RuntimeError(f"the server is in ERROR: {body.get('fault')}")
        time.sleep(POLL)


def delete(port, token, server):
    api = Api(port, token)
    api.call("DELETE", f"/compute/v2.1/servers/{server}")
    while not is_gone(api, server):
        time.sleep(0.05)


def boots(pieces, token, request, count, workers=WORKERS):
    """Boots, then deletes: times in ms, seconds of the boots, CPU seconds of them by part."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        before, began = pieces.cpu(), time.perf_counter()
        done = list(pool.map(lambda _: boot(pieces.port, token, request), range(count)))
        took, after = time.perf_counter() - began, pieces.cpu()
        list(pool.map(lambda server: delete(pieces.port, token, server[1]), done))
    return [ms for ms, _ in done], took, {part: after[part] - before[part] for part in after}


def counted(pieces, token, request):
    """Messages and commits per boot beyond the idle rate."""
    def both():
        return pieces.published(), pieces.commits()
    idle, began = both(), time.perf_counter()
    time.sleep(20)
    idle_rate = [(now - then) / (time.perf_counter() - began) for then, now in zip(idle, both())]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        before, began = both(), time.perf_counter()
        list(pool.map(lambda _: boot(pieces.port, token, request), range(COUNTED)))
        took, after = time.perf_counter() - began, both()
    return [((now - then) - rate * took) / COUNTED for then, now, rate in zip(before, after, idle_rate)]


def report(rows):
    print(f"\n{'':54} {'measured':>10} {'floor':>10}")
    for name, value, floor, unit, good in rows:
        print(f"{name:54} {value:>7.2f} {unit:<3} {floor:>6} {unit:<3} {'ok' if good else 'MISSED'}")
    return all(row[4] for row in rows)


def main():
    pieces = Pieces(sys.argv[1])
    try:
        pieces.start()
        admin, demo = sign_in(pieces, "nova"), sign_in(pieces, "nova-demo")
        request = build_request(admin, demo)
        boots(pieces, demo.token, request, 20)  # images in the caches of the hosts, connections open
        times, took, cpu = boots(pieces, demo.token, request, BOOTS)
        rate, p50, p99 = BOOTS / took, statistics.median(times), statistics.quantiles(times, n=100)[98]
        per_boot = {part: 1000 * used / BOOTS for part, used in cpu.items()}
        messages, commits = counted(pieces, demo.token, request)
        good = report([
            (f"boots, {BOOTS} servers, {WORKERS} at a time", rate, 50, "/s", rate >= 50),
            ("POST to ACTIVE, median", p50, 200, "ms", p50 <= 200),
            ("CPU per boot, all processes", sum(per_boot.values()), 30, "ms", sum(per_boot.values()) <= 30),
            (f"messages per boot, of {COUNTED}", messages, 8, "", messages <= 8),
            (f"commits per boot, of {COUNTED}", commits, 3, "", round(commits, 1) <= 3),
        ])
        print(f"POST to ACTIVE, 99th of 100: {p99:.0f} ms")
        print("CPU per boot: " + ", ".join(f"{part} {ms:.1f} ms" for part, ms in per_boot.items()))
        return 0 if good else 1
    finally:
        pieces.stop()


if __name__ == "__main__":
    sys.exit(main())
