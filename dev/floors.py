"""Measure nova-all against its speed floors, on the fake driver with SQLite on disk.

    floors.py PATH/nova-all        exit code 1 if a floor is missed

Start to healthy at most 1 s, idle memory at most 64 MiB, POST to ACTIVE at most 50 ms (median of 100), 200 requests at
once all served.
"""

import concurrent.futures
import http.client
import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "clients"))

import yaml  # noqa: E402  comes with the clients

from cloud import Cloud  # noqa: E402

BOOTS = 100
AT_ONCE = 200


class Api:
    """One kept-alive connection, signed in."""

    def __init__(self, port, token=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.token = token

    def call(self, method, path, body=None):
        headers = {"Content-Type": "application/json", "X-OpenStack-Nova-API-Version": "2.104"}
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


def boots(admin, demo):
    image = demo.call("POST", "/image/v2/images", {"name": "floors", "disk_format": "raw", "container_format": "bare"})[1]["id"]
    demo.connection.request("PUT", f"/image/v2/images/{image}/file", bytes(65536),
                            {"X-Auth-Token": demo.token, "Content-Type": "application/octet-stream"})
    demo.connection.getresponse().read()
    flavor = admin.call("POST", "/compute/v2.1/flavors", {"flavor": {"name": "floors", "ram": 64, "vcpus": 1, "disk": 1}})[1]["flavor"]["id"]
    request = {"server": {"name": "floors", "imageRef": image, "flavorRef": flavor, "networks": "none"}}
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


def report(rows):
    print(f"\n{'':44} {'measured':>10} {'floor':>10}")
    for name, value, floor, unit, good in rows:
        print(f"{name:44} {value:>7.1f} {unit:<3} {floor:>6} {unit:<3} {'ok' if good else 'MISSED'}")
    return all(row[4] for row in rows)


def main():
    cloud = Cloud(sys.argv[1], "fake")
    try:
        began = time.perf_counter()
        cloud.start()
        start = (time.perf_counter() - began) * 1000
        time.sleep(5)
        idle = memory_mib(cloud.process.pid)
        admin, demo = sign_in(cloud, "nova"), sign_in(cloud, "nova-demo")
        times = boots(admin, demo)
        served, wanted = at_once(cloud, demo.token), AT_ONCE * 5
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        good = report([
            ("start to healthy", start, 1000, "ms", start <= 1000),
            ("idle memory", idle, 64, "MiB", idle <= 64),
            (f"POST to ACTIVE, median of {BOOTS}", p50, 50, "ms", p50 <= 50),
            (f"requests served, {AT_ONCE} connections at once", served, wanted, "", served == wanted),
        ])
        print(f"POST to ACTIVE, 99th of 100: {p99:.1f} ms; memory after {BOOTS} boots: {memory_mib(cloud.process.pid):.1f} MiB")
        return 0 if good else 1
    finally:
        cloud.stop()
        cloud.remove()


if __name__ == "__main__":
    sys.exit(main())
