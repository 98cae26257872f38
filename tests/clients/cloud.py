"""A cloud of our own, in one process or in pieces: its settings, start, health and end."""

import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request


def free_port():
    """A port that is free at this moment, above the range from which the kernel gives ports to those who connect somewhere:
    one of that range is soon another's."""
    while True:
        port = random.randrange(61_000, 65_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Service:
    """One process and its log."""

    def __init__(self, name, command, port, log):
        self.name = name
        self.command = command
        self.port = port
        self.log = log
        self.process = None

    def start(self, environment):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True)

    def wait_healthy(self, until):
        """Whether it was healthy by then; a process that ended never is."""
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                    if answer.status == 200:
                        return True
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.05)
        return False

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines=15):
        return "\n".join(f"{self.name} | {line}" for line in self.log_text().splitlines()[-lines:])

    def stop(self, seconds=70):
        """SIGTERM, and its exit code; None if it had to be killed or never ran."""
        if self.process is None or self.process.poll() is not None:
            return self.process and self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def volume_driver(driver):
    """Where guests are made up, disks are, too."""
    return {"name": "memory"} if driver == "fake" else {"name": "file"}


class Cloud:
    """What every deployment has. A deployment says which services it is made of, and where its hosts are."""

    def __init__(self, programs, driver):
        self.programs = pathlib.Path(programs).resolve()
        self.driver = driver
        self.state = pathlib.Path(tempfile.mkdtemp(prefix="nova-clients."))
        self.port = None
        self.services = []

    # ---- of each deployment

    hosts = 1

    def plan(self):
        """Its services in the order of their start, the API at `self.port`, others at free ports."""
        raise NotImplementedError

    def host_settings(self):
        """For each host, the files that nova-manage needs to look at it."""
        raise NotImplementedError

    # ---- of all

    @property
    def clouds_yaml(self):
        return self.state / "clouds.yaml"

    @property
    def auth_url(self):
        return f"http://127.0.0.1:{self.port}/identity/v3"

    def environment(self, **extra):
        """The caller's environment without what would reach the clients or the services by accident."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "NOVA_"))}
        return {**kept, "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml), "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", **extra}

    def write(self, name, **groups):
        """A settings file of the state folder."""
        path = self.state / name
        lines = [line for group, options in groups.items()
                 for line in (f"[{group}]", *(f"{option} = {value}" for option, value in options.items() if value))]
        path.write_text("\n".join(lines) + "\n")
        return path

    def service(self, name, program, files, port, option):
        """A service with these settings, healthy once `port` says so, which it learns by that option."""
        command = [str(self.programs / program)]
        for path in files:
            command += ["--config-file", str(path)]
        command += ["--set", f"{option}=127.0.0.1:{port}"]
        return Service(name, command, port, self.state / f"{name}.log")

    def manage(self, files, *words, seconds=60):
        """Runs nova-manage with these settings."""
        command = [str(self.programs / "nova-manage")]
        for path in files:
            command += ["--config-file", str(path)]
        return subprocess.run([*command, *words], env=self.environment(), capture_output=True, text=True, timeout=seconds, check=False)

    def start(self, tries=3):
        """Start all and wait until they are healthy. Another process may take a port between our look and the start: then
        try again."""
        for left in reversed(range(tries)):
            self.move(free_port())
            self.services = self.plan()
            for service in self.services:
                service.start(self.environment())
            until = time.monotonic() + 60
            sick = [service for service in self.services if not service.wait_healthy(until)]
            if not sick:
                return
            self.stop()
            if not left or not any("in use" in service.log_tail() for service in sick):
                raise RuntimeError("\n".join(["not healthy:", *(service.log_tail() for service in sick)]))

    def move(self, port):
        """The API goes to that port. A start that failed may have told the clients of the port before: it does so once."""
        if self.clouds_yaml.exists():
            self.clouds_yaml.write_text(self.clouds_yaml.read_text().replace(f":{self.port}/", f":{port}/"))
        self.port = port

    def log_tail(self, lines=15):
        return "\n".join(service.log_tail(lines) for service in self.services)

    def stop(self):
        """Ends all, the last first: hosts report to the conductor what they have in hand. The exit codes by name."""
        return {service.name: service.stop() for service in reversed(self.services)}

    def remove(self):
        shutil.rmtree(self.state, ignore_errors=True)


class AllInOne(Cloud):
    """nova-all: one process, one host, SQLite."""

    def __init__(self, programs, driver, libvirt_uris=()):
        super().__init__(programs, driver)
        libvirt = {"virt_type": "qemu", "connection_uri": libvirt_uris[0]} if libvirt_uris else {}
        self.conf = self.write("nova.conf", DEFAULT={"state_path": self.state, "compute_driver": driver}, libvirt=libvirt,
                               volume_driver=volume_driver(driver))

    def __str__(self):
        return f"nova-all, {self.driver} driver"

    def plan(self):
        return [self.service("nova-all", "nova-all", [self.conf], self.port, "api.listen")]

    def host_settings(self):
        return [[self.conf]]


class Pieces(Cloud):
    """A process per service over a broker and a database server, and two compute hosts."""

    hosts = 2

    def __init__(self, programs, driver, transport_url, database_url, libvirt_uris=()):
        super().__init__(programs, driver)
        self.database = database_url.partition(":")[0]
        self.transport_url = transport_url
        self.libvirt_uris = libvirt_uris
        self.control = self.write("nova.conf", DEFAULT={"state_path": self.state, "transport_url": transport_url},
                                  database={"connection": database_url}, volume_driver=volume_driver(driver))
        self.computes = []

    def __str__(self):
        return f"pieces on RabbitMQ and {self.database}, {self.driver} driver, {self.hosts} hosts"

    def compute(self, number):
        """The settings of a host: without the database."""
        libvirt = {"virt_type": "qemu", "connection_uri": self.libvirt_uris[number - 1]} if self.libvirt_uris else {}
        own = {"host": f"compute-{number}", "state_path": self.state / f"compute-{number}", "compute_driver": self.driver,
               "transport_url": self.transport_url}
        return self.write(f"compute-{number}.conf", DEFAULT=own, api={"listen": f"127.0.0.1:{self.port}"}, libvirt=libvirt)

    def plan(self):
        done = self.manage([self.control], "db", "sync")
        if done.returncode != 0:
            raise RuntimeError(f"nova-manage db sync: {done.stdout}{done.stderr}")
        self.computes = [self.compute(number) for number in range(1, self.hosts + 1)]
        services = [self.service("nova-api", "nova-api", [self.control], self.port, "api.listen")]
        # Where images come from.
        images = self.write("images.conf", api={"listen": f"127.0.0.1:{self.port}"})
        for name in ("nova-scheduler", "nova-conductor", "nova-network", "nova-volume"):
            files = [self.control, images] if name == "nova-volume" else [self.control]
            services.append(self.service(name, name, files, free_port(), "health.listen"))
        for number, conf in enumerate(self.computes, 1):
            services.append(self.service(f"nova-compute-{number}", "nova-compute", [conf], free_port(), "health.listen"))
        return services

    def host_settings(self):
        return [[self.control, conf] for conf in self.computes]
