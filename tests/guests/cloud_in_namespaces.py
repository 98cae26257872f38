"""A cloud in pieces whose compute hosts live in network namespaces and plug real guests into real networks."""

import configparser
import contextlib
import pathlib
import signal
import subprocess
import sys
import time
import urllib.parse

from cloud import Pieces, Service, free_port
from ledger import expect, wait_until
from rig import DISKS, UNDERLAY


# Seconds: hosts that stand still count as down before a test has to wait for long.
HEARTBEATS = {"report_interval": 2, "service_down_time": 12}


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
        self.database_url = database_url
        self.edit(DEFAULT=HEARTBEATS)

    def __str__(self):
        return f"pieces on RabbitMQ and {self.database}, guests on {self.hosts} hosts in namespaces"

    def compute(self, number):
        path = super().compute(number)
        network = {"plumbing": "linux", "tunnel_ip": UNDERLAY.format(10 + number),
                   "namespace_prefix": f"{self.rig.name(f'h{number}')}-"}
        with path.open("a") as settings:
            settings.write("[network]\n" + "".join(f"{key} = {value}\n" for key, value in network.items()))
            settings.write(f"[migration]\nlisten = {UNDERLAY.format(10 + number)}:8790\n")
        own = f"public_interface = eth1\nreport_interval = {HEARTBEATS['report_interval']}\n"
        text = path.read_text().replace("[DEFAULT]\n", f"[DEFAULT]\n{own}", 1)
        libvirt = {"live_migration_inbound_addr": UNDERLAY.format(10 + number), "volume_tls_path": self.libvirt_folder(number) / "nbd-tls"}
        lines = "".join(f"{key} = {value}\n" for key, value in libvirt.items())
        text = text.replace("[libvirt]\n", f"[libvirt]\n{lines}", 1)
        path.write_text(text)
        return path

    def edit(self, **groups):
        """Writes options of the control services; one that is None is taken out. What they were before."""
        settings = configparser.ConfigParser(interpolation=None, default_section="")
        settings.optionxform = str
        settings.read(self.control)
        before = {}
        for group, options in groups.items():
            if not settings.has_section(group):
                settings.add_section(group)
            before[group] = {name: settings.get(group, name, fallback=None) for name in options}
            for name, value in options.items():
                if value is None:
                    settings.remove_option(group, name)
                else:
                    settings.set(group, name, str(value))
        with self.control.open("w") as file:
            settings.write(file)
        return before

    def reload(self):
        """Has the API and the conductor take over what they may without a restart."""
        for name in ("nova-api", "nova-conductor"):
            service = self.named(name)
            read = lambda: service.log_text().count("configuration read again")
            before = read()
            service.process.send_signal(signal.SIGHUP)
            wait_until(lambda: read() > before, 30, f"{name} reads its configuration again", pause=0.02)

    @contextlib.contextmanager
    def settings(self, **groups):
        """These options hold meanwhile."""
        before = self.edit(**groups)
        self.reload()
        try:
            yield
        finally:
            self.edit(**before)
            self.reload()

    def named(self, name):
        return next(service for service in self.services if service.name == name)

    def kill(self, name):
        """No farewell: SIGKILL."""
        service = self.named(name)
        service.process.kill()
        service.process.wait()

    def revive(self, name):
        """Starts what was killed, as a supervisor would."""
        service = self.named(name)
        service.start(self.environment())
        expect(service.wait_healthy(time.monotonic() + 60), f"{name} is not healthy: {service.log_tail()}")

    # ---- what is on the hosts, whoever owns it

    def check(self):
        """What an operator's own look says, if anything is wrong."""
        said = [self.manage(files, "check") for files in self.host_settings()]
        return "".join(done.stdout + done.stderr for done in said if done.returncode != 0)

    def virsh(self, number, *words):
        command = ["virsh", "-q", "-c", self.libvirt_uris[number - 1], *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()

    def domains(self, server, *which):
        """The numbers of the hosts whose libvirt knows it."""
        return [n for n in range(1, self.hosts + 1) if server in self.virsh(n, "list", *(which or ("--all",)), "--uuid")]

    def folders(self, server):
        """The numbers of the hosts that have a folder of it."""
        return [n for n in range(1, self.hosts + 1)
                if list((self.state / f"compute-{n}" / "instances").glob(f"*{server}*"))]

    def libvirt_folder(self, number):
        """Where dev/libvirt keeps what the host's libvirt needs."""
        query = urllib.parse.urlparse(self.libvirt_uris[number - 1]).query
        return pathlib.Path(urllib.parse.parse_qs(query)["socket"][0]).parents[1]

    def plan(self):
        services = super().plan()
        broker = int(self.transport_url.rsplit(":", 1)[1].split("/")[0])
        (self.state / "forward").mkdir(exist_ok=True)
        self.rig.forward(self.state / "forward", [broker, self.port])
        hosts = {f"nova-compute-{number}": f"h{number}" for number in range(1, self.hosts + 1)}
        return [HostService(self.rig, hosts[service.name], service) if service.name in hosts else service
                for service in services]

    def volume_host(self, host, **driver):
        """The settings of a volume host more, whose disks are reached at the underlay, and its service, which is started."""
        database = int(self.database_url.rsplit(":", 1)[1].split("/")[0])
        broker = int(self.transport_url.rsplit(":", 1)[1].split("/")[0])
        self.rig.forward(self.state / "forward", [broker, self.port, database], ["disks"])
        conf = self.write(f"{host}.conf", DEFAULT={"host": host, "state_path": self.state / host},
                          api={"listen": f"127.0.0.1:{self.port}"}, volume={"volume_backend_name": host},
                          volume_driver={"listen": DISKS, **driver})
        service = HostService(self.rig, "disks", self.service(f"nova-volume-{host}", "nova-volume", [self.control, conf],
                                                              free_port(), "health.listen"))
        service.start(self.environment())
        self.services.append(service)
        return [self.control, conf], service
