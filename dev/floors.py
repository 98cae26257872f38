"""Measure nova-all against its speed floors, on the fake driver with SQLite on disk.

    floors.py PATH/nova-all        exit code 1 if a floor is missed

Start to healthy at most 1 s, idle memory at most 64 MiB, POST to ACTIVE at most 50 ms (median of 100), 200 connections
and more requests all served, 2,000 requests at once all served while a call of the driver hangs.
"""

import asyncio
import concurrent.futures
import http.client
import json
import pathlib
import resource
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "clients"))

import yaml  # noqa: E402  comes with the clients

from cloud import AllInOne  # noqa: E402

BOOTS = 100
AT_ONCE = 200
CROWD = 2000
PATIENCE = 60


class Api:
    """One kept-alive connection, signed in."""

    more = {}  # headers besides

    def __init__(self, port, token=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.token = token

    def call(self, method, path, body=None):
        headers = {"Content-Type": "application/json", "X-OpenStack-Nova-API-Version": "2.104", **self.more}
        if self.token:
            headers["X-Auth-Token"] = self.token
        self.connection.request(method, path, body and json.dumps(body), headers)
        answer = self.connection.getresponse()
        raw = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {raw[:300]}")
        return answer, json.loads(raw) if raw else None


def sign_in(cloud, name):
    auth = yaml.safe_load(cloud.clouds_yaml.read_text())["clouds"][name]["auth"]
    domain = {"name": "Default"}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": auth["username"], "password": auth["password"], "domain": domain}}},
        "scope": {"project": {"name": auth["project_name"], "domain": domain}}}}
    api = Api(cloud.port)
    api.token = api.call("POST", "/identity/v3/auth/tokens", body)[0].getheader("X-Subject-Token")
    return api


def memory_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def wait_for(api, server, done):
    while not done(api, server):
        time.sleep(0.001)


def is_active(api, server):
    body = api.call("GET", f"/compute/v2.1/servers/{server}")[1]["server"]
    if body["status"] == "ERROR":
        raise RuntimeError(f"the server is in ERROR: {body.get('fault')}")
    return body["status"] == "ACTIVE"


def is_gone(api, server):
    try:
        api.call("GET", f"/compute/v2.1/servers/{server}")
    except RuntimeError as error:
        return " 404 " in str(error)
    return False


def build_request(admin, demo):
    """An image, a flavor, and a request for a server of them."""
    image = demo.call("POST", "/image/v2/images", {"name": "floors", "disk_format": "raw", "container_format": "bare"})[1]["id"]
    demo.connection.request("PUT", f"/image/v2/images/{image}/file", bytes(65536),
                            {"X-Auth-Token": demo.token, "Content-Type": "application/octet-stream"})
    demo.connection.getresponse().read()
    flavor = admin.call("POST", "/compute/v2.1/flavors", {"flavor": {"name": "floors", "ram": 64, "vcpus": 1, "disk": 1}})[1]["flavor"]["id"]
    return {"server": {"name": "floors", "imageRef": image, "flavorRef": flavor, "networks": "none"}}


def boots(demo, request):
    """Milliseconds from POST to ACTIVE of servers that are made and deleted one after the other."""
    times = []
    for _ in range(BOOTS):
        began = time.perf_counter()
        server = demo.call("POST", "/compute/v2.1/servers", request)[1]["server"]["id"]
        wait_for(demo, server, is_active)
        times.append((time.perf_counter() - began) * 1000)
        demo.call("DELETE", f"/compute/v2.1/servers/{server}")
        wait_for(demo, server, is_gone)
    return times


def at_once(cloud, token):
    def one(_):
        return Api(cloud.port, token).call("GET", "/compute/v2.1/servers/detail")[0].status
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(status == 200 for status in pool.map(one, range(AT_ONCE * 5)))


def raise_file_limit():
    """Room for the crowd's connections, here and in the nova-all that is started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CROWD
    if soft != resource.RLIM_INFINITY and soft < wanted:
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < 2 * CROWD:
        raise RuntimeError(f"{CROWD} connections need more open files than the {hard} that are allowed here (ulimit -Hn)")


async def read_status(reader):
    """The status of one answer, read whole; 0 if it was cut off."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:"))
        await reader.readexactly(length)
        return int(lines[0].split(" ")[1])
    except (asyncio.IncompleteReadError, OSError):
        return 0


async def crowd(port, token):
    """That many requests under way at the same time: how many got a 200, and the ms until the last answer.

    All connections are open and all requests sent but for their last bytes before the first one is completed, and all
    are completed before the first answer is read.
    """
    async def connect():
        return await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /compute/v2.1/servers HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Auth-Token: {token}\r\n".encode()
    connections = []
    while len(connections) < CROWD:  # by the hundred, as the kernel's queue of new connections is short
        connections += await asyncio.gather(*(connect() for _ in range(min(100, CROWD - len(connections)))))
    for _, writer in connections:
        writer.write(head)
    await asyncio.gather(*(writer.drain() for _, writer in connections))
    began = time.perf_counter()
    for _, writer in connections:
        writer.write(b"\r\n")
    statuses = await asyncio.wait_for(asyncio.gather(*(read_status(reader) for reader, _ in connections)), PATIENCE)
    took = (time.perf_counter() - began) * 1000
    for _, writer in connections:
        writer.close()
    return sum(status == 200 for status in statuses), took


def crowd_while_driver_hangs(cloud, request):
    """The crowd's figures on a nova-all whose driver is busy with a build that does not end."""
    cloud.stop()
    with cloud.conf.open("a") as conf:
        conf.write("[fake]\nboot_latency_ms = 3600000\n")
    cloud.start()
    demo = sign_in(cloud, "nova-demo")
    server = demo.call("POST", "/compute/v2.1/servers", request)[1]["server"]["id"]

    def is_spawning(api, server):
        body = api.call("GET", f"/compute/v2.1/servers/{server}")[1]["server"]
        return body["status"] == "BUILD" and body["OS-EXT-STS:task_state"] == "spawning"
    end = time.monotonic() + PATIENCE
    while not is_spawning(demo, server):
        if time.monotonic() > end:
            raise RuntimeError("the build that is to hang never began")
    figures = asyncio.run(crowd(cloud.port, demo.token))
    if not is_spawning(demo, server):
        raise RuntimeError("the build that was to hang did not")
    cloud.services[0].process.kill()  # it would wait for the build
    return figures


def report(rows):
    print(f"\n{'':54} {'measured':>10} {'floor':>10}")
    for name, value, floor, unit, good in rows:
        print(f"{name:54} {value:>7.1f} {unit:<3} {floor:>6} {unit:<3} {'ok' if good else 'MISSED'}")
    return all(row[4] for row in rows)


def main():
    raise_file_limit()
    cloud = AllInOne(pathlib.Path(sys.argv[1]).parent, "fake")
    try:
        began = time.perf_counter()
        cloud.start()
        start = (time.perf_counter() - began) * 1000
        time.sleep(5)
        idle = memory_mib(cloud.services[0].process.pid)
        admin, demo = sign_in(cloud, "nova"), sign_in(cloud, "nova-demo")
        request = build_request(admin, demo)
        times = boots(demo, request)
        served, wanted = at_once(cloud, demo.token), AT_ONCE * 5
        after = memory_mib(cloud.services[0].process.pid)
        crowd_served, crowd_ms = crowd_while_driver_hangs(cloud, request)
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        good = report([
            ("start to healthy", start, 1000, "ms", start <= 1000),
            ("idle memory", idle, 64, "MiB", idle <= 64),
            (f"POST to ACTIVE, median of {BOOTS}", p50, 50, "ms", p50 <= 50),
            (f"requests served, {AT_ONCE} connections at once", served, wanted, "", served == wanted),
            (f"{CROWD} requests at once while the driver hangs, served", crowd_served, CROWD, "", crowd_served == CROWD),
        ])
        print(f"POST to ACTIVE, 99th of 100: {p99:.1f} ms; memory after {BOOTS} boots: {after:.1f} MiB")
        print(f"{CROWD} requests at once while the driver hangs: all answered after {crowd_ms:.0f} ms")
        return 0 if good else 1
    finally:
        cloud.stop()
        cloud.remove()


if __name__ == "__main__":
    sys.exit(main())
