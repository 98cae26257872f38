"""Guests that boot, what they say on their consoles, and shells in them over SSH."""

import re
import subprocess

import openstack

from ledger import Wrong, wait_until
from rig import run

BOOT_SECONDS = 240


class Guest:
    """A server, its console and a shell in it."""

    def __init__(self, cloud, connection, server):
        self.cloud = cloud
        self.connection = connection
        self.id = server.id
        self.name = server.name

    def server(self):
        return self.connection.compute.get_server(self.id)

    def console(self):
        return self.connection.compute.get_server_console_output(self.id)["output"]

    def says(self, pattern, seconds=60, what=None):
        """Waits for a line of the console; the match."""
        found = re.compile(pattern)
        try:
            return wait_until(lambda: found.search(self.console()), seconds, what or f"{self.name} says {pattern!r}", pause=1)
        except Wrong as late:
            raise Wrong(f"{late}; it said last: {self.console()[-1000:]!r}") from late

    def addresses(self, kind="fixed"):
        """Its addresses as the API tells them."""
        return [a["addr"] for each in self.server().addresses.values() for a in each if a["OS-EXT-IPS:type"] == kind]


class Shell:
    """SSH from the world to a floating address, with the private key of a keypair."""

    def __init__(self, rig, key, address):
        self.rig, self.key, self.address = rig, key, address

    def words(self, command):
        return self.rig.inside("world", "dbclient", "-y", "-y", "-T", "-i", self.key, f"root@{self.address}", command)

    def run(self, command, seconds=40):
        """What the command wrote; it must succeed."""
        return run(*self.words(command), timeout=seconds)

    def fails(self, command, seconds=40):
        done = subprocess.run(self.words(command), capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode == 0:
            raise Wrong(f"{command!r} succeeded: {done.stdout}")

    def opens(self, seconds=60):
        """Waits until somebody answers there; the guest's name."""
        def name():
            # A connection that begins while the address moves may hang: the next one does not.
            try:
                done = subprocess.run(self.words("hostname"), capture_output=True, text=True, timeout=8, check=False)
            except subprocess.TimeoutExpired:
                return None
            return done.stdout.strip() if done.returncode == 0 else None
        return wait_until(name, seconds, f"a shell at {self.address}", pause=0.5)


class Tenant:
    """A project's user, and what is made in its name."""

    def __init__(self, cloud, name):
        self.cloud = cloud
        self.connection = openstack.connect(cloud=name)

    def network(self, name, cidr, **more):
        network = self.connection.network.create_network(name=name)
        subnet = self.connection.network.create_subnet(network_id=network.id, ip_version=4, cidr=cidr, name=name, **more)
        return network, subnet

    def router(self, name, outer, *subnets):
        router = self.connection.network.create_router(name=name, external_gateway_info={"network_id": outer.id})
        for subnet in subnets:
            self.connection.network.add_interface_to_router(router, subnet_id=subnet.id)
        return router

    def boot(self, name, image, flavor, networks, **more):
        server = self.connection.compute.create_server(name=name, image_id=image, flavor_id=flavor, networks=networks, **more)
        return Guest(self.cloud, self.connection, server)

    def wait(self, guest):
        server = self.connection.compute.wait_for_server(guest.server(), wait=BOOT_SECONDS)
        return server
