"""Measure the cloud in pieces under a storm: RabbitMQ, PostgreSQL, a process per service, a thousand fake hosts, each with a
connection of its own.

    floors_storm.py FOLDER [BOOTS]     FOLDER holds nova-api, nova-scheduler, …; exit code 1 if a floor is missed

50 clients boot 5,000 servers as fast as they are served: all ACTIVE, at least 60 a second over the whole time. Then all are
deleted. At most 25 ms of CPU per boot and delete over all processes, broker and database included; `nova-manage check` finds
nothing. A client asks for its server every 100 ms, less often than the other floors: 50 that wait would be most of the load.
"""

import concurrent.futures
import os
import statistics
import subprocess
import sys
import time

import floors_pieces
from floors import Api, build_request, is_gone, sign_in
from floors_pieces import Pieces, report

CLIENTS = 50
HOSTS = 1000
PATIENCE = 0.1


def delete(port, token, server):
    """Milliseconds from DELETE until it is gone."""
    api, began = Api(port, token), time.perf_counter()
    api.call("DELETE", f"/compute/v2.1/servers/{server}")
    while not is_gone(api, server):
        time.sleep(PATIENCE)
    return (time.perf_counter() - began) * 1000


def each(work, items):
    """Calls `work` for all, 50 at a time, with a line now and then: results and seconds."""
    done, began = [], time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        for result in pool.map(work, items):
            done.append(result)
            if len(done) % 1000 == 0:
                print(f"{len(done)} of {len(items)} after {time.perf_counter() - began:.0f} s", flush=True)
    return done, time.perf_counter() - began


def main():
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    floors_pieces.POLL = PATIENCE
    # Of a broker that stops its publishers for want of memory, only that would be measured.
    os.environ.setdefault("NOVA_RABBITMQ_MEMORY", "4GB")
    pieces = Pieces(sys.argv[1], HOSTS)
    try:
        pieces.start()
        admin, demo = sign_in(pieces, "nova"), sign_in(pieces, "nova-demo")
        request = build_request(admin, demo)
        wait_for_hosts(pieces, admin)
        before = pieces.cpu()
        booted, took = each(lambda _: floors_pieces.boot(pieces.port, demo.token, request), range(count))
        between = pieces.cpu()
        deleted, deleting = each(lambda server: delete(pieces.port, demo.token, server), [server for _, server in booted])
        after = pieces.cpu()
        times = [ms for ms, _ in booted]
        per_boot = {part: 1000 * (after[part] - before[part]) / count for part in after}
        boots_only = sum(1000 * (between[part] - before[part]) / count for part in between)
        total, rate = sum(per_boot.values()), count / took
        good = report([
            (f"boots, {count} servers, {CLIENTS} at a time, {HOSTS} hosts", rate, 60, "/s", rate >= 60),
            ("CPU per boot and delete, all processes", total, 25, "ms", total <= 25),
        ])
        cuts = statistics.quantiles(times, n=100)
        print(f"all {count} ACTIVE after {took:.1f} s; POST to ACTIVE p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms")
        print(f"deletes {count / deleting:.0f}/s, p50 {statistics.median(deleted):.0f} ms; CPU of the boots alone {boots_only:.1f} ms each")
        print("CPU per boot and delete: " + ", ".join(f"{part} {ms:.1f} ms" for part, ms in per_boot.items()))
        check = subprocess.run([pieces.programs / "nova-manage", "--config-file", pieces.conf, "check"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(check.stdout.strip().splitlines()[-1] if check.stdout.strip() else "nova-manage check: clean")
        return 0 if good and check.returncode == 0 else 1
    finally:
        pieces.stop()


def wait_for_hosts(pieces, admin):
    """Until all hosts are there to be scheduled to."""
    api, end = Api(pieces.port, admin.token), time.monotonic() + 180
    while True:
        services = api.call("GET", "/compute/v2.1/os-services?binary=nova-compute")[1]["services"]
        if sum(service["state"] == "up" for service in services) >= HOSTS:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"only {len(services)} of {HOSTS} hosts are there")
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
