"""A cloud in pieces whose compute hosts live in network namespaces and plug real guests into real networks."""

import subprocess
import sys
import time

from cloud import Pieces, Service
from rig import UNDERLAY


class HostService(Service):
    """A service in a host's namespaces, where its health page is as well."""

    def __init__(self, rig, host, service):
        # Not by `ip netns exec`: in a mount namespace of its own, the names of what it makes would go with it.
        enter = ["nsenter", f"--net=/run/netns/{rig.name(host)}"]
        super().__init__(service.name, [*enter, *service.command], service.port, service.log)
        self.inside = lambda *words: rig.inside(host, *words)

    def wait_healthy(self, until):
        page = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{self.port}/healthz', timeout=5)"
        while time.monotonic() < until and self.process.poll() is None:
            if subprocess.run(self.inside(sys.executable, "-c", page), capture_output=True, check=False).returncode == 0:
                return True
            time.sleep(0.2)
        return False


class PiecesInNamespaces(Pieces):
    """As `Pieces`, with the network service and hosts that are namespaces of the rig."""

    def __init__(self, programs, rig, transport_url, database_url, libvirt_uris):
        super().__init__(programs, "libvirt", transport_url, database_url, libvirt_uris)
        self.rig = rig

    def __str__(self):
        return f"pieces on RabbitMQ and {self.database}, guests on {self.hosts} hosts in namespaces"

    def compute(self, number):
        path = super().compute(number)
        network = {"plumbing": "linux", "tunnel_ip": UNDERLAY.format(10 + number),
                   "namespace_prefix": f"{self.rig.name(f'h{number}')}-"}
        with path.open("a") as settings:
            settings.write("[network]\n" + "".join(f"{key} = {value}\n" for key, value in network.items()))
            settings.write(f"[migration]\nlisten = {UNDERLAY.format(10 + number)}:8790\n")
        text = path.read_text().replace("[DEFAULT]\n", "[DEFAULT]\npublic_interface = eth1\n", 1)
        text = text.replace("[libvirt]\n", f"[libvirt]\nlive_migration_inbound_addr = {UNDERLAY.format(10 + number)}\n", 1)
        path.write_text(text)
        return path

    def plan(self):
        services = super().plan()
        broker = int(self.transport_url.rsplit(":", 1)[1].split("/")[0])
        (self.state / "forward").mkdir(exist_ok=True)
        self.rig.forward(self.state / "forward", [broker, self.port])
        hosts = {f"nova-compute-{number}": f"h{number}" for number in range(1, self.hosts + 1)}
        return [HostService(self.rig, hosts[service.name], service) if service.name in hosts else service
                for service in services]
