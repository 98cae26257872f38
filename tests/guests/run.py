"""Real packets between real guests, the life of one, disks that outlive it, disks of several kinds, and services that are killed
meanwhile: two compute hosts in namespaces, guests that boot, a piece of the world.

    run.py --programs FOLDER --transport-url URL --database-url URL --libvirt-uri URI --libvirt-uri URI --image PATH
           --prefix NAME [--keep]

Runs in the environment of dev/clients-venv, as root, on a rig that `rig.py --prefix NAME up` made; each libvirt must have
been started in its host's namespace (NAME-h1, NAME-h2). Ends with 'guests: N passed, N failed'.
"""

import argparse
import base64
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "clients"))

import killed  # noqa: E402
import moves  # noqa: E402
import storage  # noqa: E402
import volumes  # noqa: E402
from cloud_in_namespaces import PiecesInNamespaces  # noqa: E402
from guests import Shell, Tenant  # noqa: E402
from ledger import Ledger, Wrong, expect, expect_equal, wait_until  # noqa: E402
from rig import PUBLIC, WORLD, Rig, run  # noqa: E402

RANGE = "10.1.0.0/24"
# Bytes of an image that takes a moment to copy.
BLANK = 24 << 20
# Says on the console, again and again, under which address the world sees the guest.
SEEN = f"""#!/bin/sh
( while sleep 2; do seen=$(wget -q -O - http://{WORLD}:8000/ 2>/dev/null) && echo "guest: seen as $seen"; done >/dev/console ) &
"""
# Answers every connection with the address that it comes from.
ECHO = """
import socket
server = socket.create_server(("", 8000))
while True:
    one, who = server.accept()
    try:
        one.recv(4096)
        one.sendall(("HTTP/1.0 200 OK\\r\\n\\r\\n" + who[0]).encode())
    except OSError:
        pass
    one.close()
"""
# Ends well if a connection is dropped; the guest itself would refuse it, as nobody listens there.
DROPPED = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 8080), 4)
except TimeoutError:
    sys.exit(0)
except OSError as error:
    sys.exit(f"it came through: {error}")
sys.exit("it came through, and somebody listens")
"""


class Scenario:
    """Two projects with the same range of addresses; `demo` on both hosts, `other` on one of them."""

    def __init__(self, cloud, rig, image):
        self.cloud, self.rig, self.image_path = cloud, rig, image
        self.guests = {}
        self.key = cloud.state / "key"
        self._blank = None

    # ---- what the tests need

    def users(self):
        """The administrator, the project `demo`, and another project with a user of its own."""
        admin = Tenant(self.cloud, "nova")
        project = admin.connection.create_project(name="other", domain_id="default")
        admin.connection.create_user(name="other", password="secret-other", domain_id="default")
        admin.connection.grant_role("member", user="other", project=project.id)
        text = self.cloud.clouds_yaml.read_text()
        mine = text[text.index("  nova-demo:"):].replace("nova-demo:", "nova-other:", 1)
        lines = []
        for line in mine.split("\n"):
            key = line.strip().split(":")[0]
            values = {"username": "other", "project_name": "other", "password": "secret-other"}
            lines.append(f"{line.split(key)[0]}{key}: {values[key]}" if key in values else line)
        self.cloud.clouds_yaml.write_text(text.rstrip("\n") + "\n" + "\n".join(lines))
        self.admin, self.demo, self.other = admin, Tenant(self.cloud, "nova-demo"), Tenant(self.cloud, "nova-other")
        return True

    def upload(self, name, **properties):
        """The id of an image of demo's that guests boot from, with these properties."""
        return self.demo.connection.create_image(name, filename=str(self.image_path), disk_format="qcow2", container_format="bare",
                                                 wait=True, timeout=60, **properties).id

    def blank(self):
        """The id of an image from which nothing boots: a guest of it stands in its firmware, and takes no processor."""
        if self._blank is None:
            raw, path = self.cloud.state / "blank.raw", self.cloud.state / "blank.qcow2"
            raw.write_bytes(os.urandom(BLANK))
            # Images that are made of servers have the format of theirs: a raw one would be as large as the disk.
            run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path))
            self._blank = self.demo.connection.create_image("blank", filename=str(path), disk_format="qcow2", container_format="bare",
                                                            wait=True, timeout=60).id
        return self._blank

    def stuff(self):
        """Image, flavor, keypair."""
        image = self.admin.connection.create_image("guest", filename=str(self.image_path), disk_format="qcow2",
                                                   container_format="bare", visibility="public", wait=True, timeout=60)
        flavor = self.admin.connection.compute.create_flavor(name="guest", ram=192, vcpus=1, disk=1)
        run("dropbearkey", "-t", "ed25519", "-f", str(self.key))
        public = run("dropbearkey", "-y", "-f", str(self.key))
        public = next(line for line in public.split("\n") if line.startswith("ssh-"))
        self.demo.connection.compute.create_keypair(name="key", public_key=public)
        self.image, self.flavor = image.id, flavor.id
        return True

    def networks(self):
        network = self.admin.connection.network
        self.outer = network.find_network("outside") or network.create_network(
            name="outside", is_router_external=True)
        network.create_subnet(network_id=self.outer.id, ip_version=4, cidr=PUBLIC.format(0) + "/24", gateway_ip=WORLD,
                              enable_dhcp=False, allocation_pools=[{"start": PUBLIC.format(100), "end": PUBLIC.format(199)}])
        self.net, subnet = self.demo.network("net", RANGE)
        # Without a gateway: the guest would take it for its way out.
        self.second, _ = self.demo.network("second", "10.2.0.0/24", gateway_ip=None)
        self.router = self.demo.router("router", self.outer, subnet)
        self.foreign, _ = self.other.network("net", RANGE)
        rule = self.demo.connection.network.create_security_group_rule
        group = self.demo.connection.network.find_security_group("default")
        self.group = group
        rule(security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22)
        rule(security_group_id=group.id, direction="ingress", protocol="icmp")
        return True

    def boot(self):
        """Three guests at once: two of demo's on two hosts, one of the other project with an address that demo has, too."""
        boot = {"image": self.image, "flavor": self.flavor}
        self.one = self.demo.boot("one", networks=[{"uuid": self.net.id}], key_name="key", **boot)
        self.two = self.demo.boot("two", networks=[{"uuid": self.net.id}], key_name="key",
                                  scheduler_hints={"different_host": [self.one.id]},
                                  user_data=base64.b64encode(SEEN.encode()).decode(), **boot)
        self.strange = self.other.boot("strange", networks=[{"uuid": self.foreign.id, "fixed_ip": "10.1.0.77"}], **boot)
        for tenant, guest in ((self.demo, self.one), (self.demo, self.two), (self.other, self.strange)):
            tenant.wait(guest)
        return True

    def floating(self):
        """A floating address for the first guest; a shell there with the key of the keypair."""
        port = next(self.demo.connection.network.ports(device_id=self.one.id))
        self.address = self.demo.connection.network.create_ip(floating_network_id=self.outer.id, port_id=port.id)
        self.shell = Shell(self.rig, self.key, self.address.floating_ip_address)
        expect_equal(self.shell.opens(120), "one", "name of the guest that answers")
        expect_equal(self.one.addresses("floating"), [self.address.floating_ip_address], "floating address of the server")
        return True

    # ---- what is tested

    def hosts_differ(self):
        hosts = {self.admin.connection.compute.get_server(guest.id).compute_host for guest in (self.one, self.two)}
        expect_equal(len(hosts), 2, f"number of hosts ({hosts})")

    def addresses_by_dhcp(self):
        for guest in (self.one, self.two, self.strange):
            told = guest.says(r"guest: dhcp eth0 (\S+)/24 router=(\S+)", 120)
            expect_equal([told.group(1)], guest.addresses(), f"address that {guest.name} got by DHCP")
        expect_equal(self.strange.addresses(), ["10.1.0.77"], "address on request")

    def metadata(self):
        for guest, keys in ((self.one, 1), (self.two, 1), (self.strange, 0)):
            told = guest.says(r"guest: metadata source=(\S+) uuid=(\S+) hostname=(\S+) keys=(\d+)", 120)
            expect_equal(told.groups()[:2] + told.groups()[3:], ("metadata-service", guest.id, str(keys)), f"metadata of {guest.name}")

    def metadata_is_ones_own(self):
        """A header that names another server changes nothing."""
        got = self.shell.run(f"wget -q -O - --header 'X-Instance-ID: {self.strange.id}' "
                             "http://169.254.169.254/latest/meta-data/hostname")
        expect(got.startswith("one"), f"the guest was told of {got!r}")

    def mtu(self):
        mtu = self.demo.connection.network.get_network(self.net.id).mtu
        expect_equal(int(self.shell.run("cat /sys/class/net/eth0/mtu")), mtu, "largest packet")
        self.shell.run(f"ping -c 1 -W 5 -s {mtu - 28} {self.two.addresses()[0]}")

    def between_hosts(self):
        self.shell.run(f"ping -c 3 -W 5 {self.two.addresses()[0]}")
        # Its SSH server greets whoever connects.
        greeting = self.shell.run(f"echo | nc -w 5 {self.two.addresses()[0]} 22 | head -n 1")
        expect(greeting.startswith("SSH-2.0"), f"no greeting but {greeting!r}")

    def names(self):
        expect(self.two.addresses()[0] in self.shell.run("nslookup two 169.254.169.254"), "the name of another server")

    def projects_are_apart(self):
        """The address is the other project's alone: nobody here answers."""
        self.shell.fails("ping -c 2 -W 2 10.1.0.77")
        seen = self.shell.run("ip neigh; ip addr")
        expect("10.1.0.77" not in seen or "FAILED" in seen or "INCOMPLETE" in seen, seen)

    def spoofing(self):
        two = self.two.addresses()[0]
        self.shell.run("ip addr add 10.1.0.99/24 dev eth0")
        self.shell.fails(f"ping -c 2 -W 2 -I 10.1.0.99 {two}")
        self.shell.run("ip addr del 10.1.0.99/24 dev eth0")

    def outside(self):
        """From a guest with a floating address the world sees that one; from another, its host's."""
        with self.world():
            ask = f"wget -q -O - http://{WORLD}:8000/"
            expect_equal(self.shell.run(ask), self.address.floating_ip_address, "what the world sees of the first guest")
            # The second guest has no address outside: it says on its console what the world sees.
            self.two.says(rf"guest: seen as {PUBLIC.format(2)}[12]\b", 90)

    def world(self):
        return World(self.rig)

    def from_outside_source_is_kept(self):
        seen = self.shell.run("netstat -tn | grep ':22 '")
        expect(WORLD in seen, f"the guest sees {seen!r}")

    def reachable(self):
        """Does the guest answer one packet of the world? Asked once: there is no second try."""
        words = self.rig.inside("world", "ping", "-c", "1", "-W", "2", self.shell.address)
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def applied(self, group):
        """Waits until the API says that the group is in force on every host."""
        def said():
            return self.demo.connection.network.get(f"/security-groups/{group}").json()["security_group"]["applied"]
        wait_until(said, 20, "the API says that the rules are in force", pause=0.02)

    def rule_cuts(self):
        """A rule that goes stops what it let through; it comes back, and so do answers. When the API says that a change is
        in force, it is: the very next packet is asked."""
        network = self.demo.connection.network
        rule = next(r for r in network.security_group_rules(security_group_id=self.group.id, direction="ingress", protocol="icmp"))
        expect(self.reachable(), "the guest does not answer from the beginning")
        with Flow(self.rig, self.shell.address) as flow:
            began = time.time()
            network.delete_security_group_rule(rule.id)
            self.applied(self.group.id)
            told = time.time()
            expect(not self.reachable(), "the API says that the rule is gone everywhere, and a packet passed")
            back = time.time()
            network.create_security_group_rule(security_group_id=self.group.id, direction="ingress", protocol="icmp")
            self.applied(self.group.id)
            again = time.time()
            expect(self.reachable(), "the API says that the rule is in force everywhere, and a packet did not pass")
        last = max((at for at in flow.answers if at < told), default=began)
        first = min((at for at in flow.answers if at > back), default=again)
        expect(not [at for at in flow.answers if told < at < back], "answers came though the rule was gone everywhere")
        print(f"          (a rule less was in force {last - began:.2f} s after it was asked for, and the API said so after "
              f"{told - began:.2f} s; a rule more {first - back:.2f} s and {again - back:.2f} s)")

    def membership(self):
        """A guest that leaves a group, and comes back to it, is let through by the rules that name the group, or not."""
        network = self.demo.connection.network
        friends = network.create_security_group(name="friends")
        port = next(network.ports(device_id=self.two.id))
        mine = next(network.ports(device_id=self.one.id))
        # What else the guests have lets their projects' guests in anyway: the second one is to be let in by this alone.
        guard = network.create_security_group(name="guard")
        network.create_security_group_rule(security_group_id=guard.id, direction="ingress", protocol="icmp",
                                           remote_group_id=friends.id)
        network.update_port(port, security_groups=[guard.id])
        self.applied(guard.id)
        asks = f"ping -c 1 -W 2 {self.two.addresses()[0]}"
        self.shell.fails(asks)
        began = time.time()
        network.update_port(mine, security_groups=[self.group.id, friends.id])
        self.applied(friends.id)
        told = time.time()
        self.shell.run(asks)
        network.update_port(mine, security_groups=[self.group.id])
        self.applied(friends.id)
        self.shell.fails(asks)
        network.update_port(port, security_groups=[self.group.id])
        self.applied(self.group.id)
        self.shell.run(asks)
        for group in (guard, friends):
            network.delete_security_group(group.id)
        print(f"          (a member more was in force on both hosts, and the API said so, after {told - began:.2f} s)")

    def hot_plug(self):
        """An interface more is seen by the guest, which is told by its tag where it is, gets its address, and goes again."""
        compute = self.demo.connection.compute
        interface = compute.create_server_interface(self.one.id, net_id=self.second.id, tag="backup")
        address = interface.fixed_ips[0]["ip_address"]
        self.one.says(rf"guest: hotplug new net eth1 mac={interface.mac_addr}", 60)
        self.one.says(rf"guest: dhcp eth1 {address}/24", 60)
        expect(address in self.one.addresses(), f"{address} is not in {self.one.addresses()}")
        # The host remembers what the conductor said for 5 s.
        asks = "wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"
        told = wait_until(lambda: json.loads(self.shell.run(asks))["devices"], 15, "its metadata tells of the device")
        place = self.shell.run("basename $(dirname $(readlink -f /sys/class/net/eth1/device))").strip()
        wanted = {"type": "nic", "bus": "pci", "address": place, "mac": interface.mac_addr, "tags": ["backup"]}
        expect_equal(told, [wanted], "devices of its metadata")
        compute.delete_server_interface(interface, server=self.one.id)
        self.one.says(r"guest: hotplug gone net eth1", 60)
        wait_until(lambda: address not in self.one.addresses(), 30, "the address is gone")

    def move(self):
        """The floating address goes to the other guest, on the other host; the world follows."""
        network = self.demo.connection.network
        port = next(network.ports(device_id=self.two.id))
        self.rig.ask("world", "ping", "-c", "1", "-W", "2", self.shell.address)
        network.update_ip(self.address, port_id=port.id)
        wait_until(lambda: self.shell.opens(60) == "two", 30, "the other guest answers")

    def services_down(self):
        """Guests keep their network while nothing of ours runs, and renew their addresses."""
        for service in self.cloud.services:
            service.process.kill()
            service.process.wait()
        one = self.one_address
        self.shell.run(f"ping -c 2 -W 5 {one}")
        # Whoever renews a lease writes the name servers anew.
        self.shell.run("echo spoiled >/etc/resolv.conf; kill -USR1 $(cat /run/udhcpc.eth0.pid); n=0; "
                       "while grep -q spoiled /etc/resolv.conf; do n=$((n+1)); [ $n -lt 20 ] || exit 1; sleep 1; done; "
                       "grep nameserver /etc/resolv.conf && ip addr show dev eth0 | grep 10.1.0.")
        self.shell.run(f"ping -c 2 -W 5 {one}")
        # The rules are in force: what is not allowed is dropped on its way in, and so is a foreign address on its way out.
        done = subprocess.run(self.rig.inside("world", sys.executable, "-c", DROPPED, self.shell.address),
                              capture_output=True, text=True, check=False)
        expect_equal(done.returncode, 0, f"exit code of a connection that nothing allows ({done.stderr})")
        self.shell.run("ip addr add 10.1.0.99/24 dev eth0")
        self.shell.fails(f"ping -c 2 -W 2 -I 10.1.0.99 {one}")
        self.shell.run("ip addr del 10.1.0.99/24 dev eth0")

    def services_up(self):
        for service in self.cloud.services:
            service.start(self.cloud.environment())
        until = time.monotonic() + 60
        sick = [service.name for service in self.cloud.services if not service.wait_healthy(until)]
        expect(not sick, f"not healthy again: {sick}")
        self.shell.run(f"ping -c 2 -W 5 {self.one_address}")

    def remember(self):
        self.one_address = self.one.addresses()[0]

    def drain(self):
        """A host is emptied for maintenance: who runs there runs on, elsewhere."""
        guest = self.two if self.shell.opens(60) == "two" else self.one
        host = lambda: self.admin.connection.compute.get_server(guest.id).compute_host
        uptime = lambda: float(self.shell.run("cut -d' ' -f1 /proc/uptime"))
        before, began = host(), uptime()
        files = [self.cloud.control]
        done = self.cloud.manage(files, "host", "drain", before, "--wait", seconds=240)
        expect_equal(done.returncode, 0, f"exit code of host drain ({done.stdout}{done.stderr})")
        expect(host() != before, "the guest is still there")
        expect(self.shell.opens(60) and uptime() > began, "the guest began anew")
        number = int(before.rsplit("-", 1)[1])
        expect_equal(self.cloud.virsh(number, "list", "--all", "--uuid"), "", "domains that are left there")
        done = self.cloud.manage(files, "host", "undrain", before)
        expect_equal(done.returncode, 0, f"exit code of host undrain ({done.stdout}{done.stderr})")

    def gone(self):
        """All servers and networks are deleted: nothing is left on the hosts."""
        for tenant, guests in ((self.demo, (self.one, self.two)), (self.other, (self.strange,))):
            for guest in guests:
                tenant.connection.compute.delete_server(guest.id)
            for guest in guests:
                wait_until(lambda: tenant.connection.compute.find_server(guest.id) is None, 90, f"{guest.name} is gone")
        self.demo.connection.network.delete_ip(self.address)
        try:
            wait_until(lambda: not self.left(), 60, "nothing is left on the hosts", pause=1)
        except Wrong as late:
            raise Wrong(f"{late}: {self.left()}") from late

    def left(self):
        """What of ours is still on the hosts."""
        found = []
        for number in (1, 2):
            links = self.rig.ask(f"h{number}", "ip", "-o", "link")
            found += [line for line in links.split("\n") if any(f" {p}" in line for p in ("tap", "brq", "vx-", "nvr", "nsl"))]
        own = [line for line in run("ip", "netns", "list").split("\n") if line.startswith(self.rig.name("h"))]
        found += [line for line in own if "nova-net" in line or "nova-rtr" in line]
        return found

    def check(self):
        """Hosts look for what guests left behind a few seconds after they left."""
        try:
            wait_until(lambda: not self.cloud.check(), 30, "nova-manage check finds nothing", pause=1)
        except Wrong as late:
            raise Wrong(f"{late}: {self.cloud.check()}") from late

    def log(self):
        for service in self.cloud.services:
            bad = [line for line in service.log_text().splitlines() if "panicked at" in line or "a mistake:" in line]
            expect(not bad, "\n".join([service.name, *bad[:5]]))


class Flow:
    """Packets of the world to an address, fifty a second, and when their answers came."""

    def __init__(self, rig, address):
        self.words = rig.inside("world", "ping", "-n", "-D", "-i", "0.02", address)
        self.answers = []

    def __enter__(self):
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, text=True, start_new_session=True)
        # The first answer: it is under way.
        expect(self.process.stdout.readline() and "bytes from" in self.process.stdout.readline(), "no answer")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        text = self.process.communicate()[0]
        self.answers = [float(at) for at in re.findall(r"^\[([0-9.]+)\] \d+ bytes from", text, re.MULTILINE)]


class World:
    """The server in the world that says who asks."""

    def __init__(self, rig):
        self.rig = rig

    def __enter__(self):
        self.process = subprocess.Popen(self.rig.inside("world", sys.executable, "-c", ECHO), start_new_session=True)
        time.sleep(0.5)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


PREPARATION = ("users", "stuff", "networks", "boot", "floating")
PACKETS = ("hosts_differ", "addresses_by_dhcp", "metadata", "metadata_is_ones_own", "mtu", "between_hosts", "names",
           "projects_are_apart", "spoofing", "outside", "from_outside_source_is_kept", "rule_cuts", "membership", "hot_plug",
           "remember", "move", "services_down", "services_up")
PARTS = ("packets", "life", "volumes", "storage", "killed")
END = ("drain", "gone", "check", "log")


def drive(scenario, ledger, parts):
    ledger.part("preparation")
    for name in PREPARATION:
        if ledger.step(name, getattr(scenario, name)) is None:
            return
    if "packets" in parts:
        ledger.part("packets")
        for name in PACKETS:
            ledger.step(name.replace("_", " "), getattr(scenario, name))
    if "life" in parts:
        moves.drive(scenario, ledger)
    disks = storage.begin(scenario, ledger) if {"volumes", "storage"} & set(parts) else None
    if disks and "volumes" in parts:
        volumes.drive(scenario, ledger)
    if disks and "storage" in parts:
        storage.drive(disks, ledger)
    if "killed" in parts:
        killed.drive(scenario, ledger)
    ledger.part("the end")
    for name in END:
        ledger.step(name.replace("_", " "), getattr(scenario, name))


def main():
    parser = argparse.ArgumentParser(description="Real packets between real guests.")
    for name in ("programs", "transport-url", "database-url", "image", "prefix"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--libvirt-uri", action="append", required=True)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the state folder, the cloud and its guests until a key")
    arguments = parser.parse_args()
    ledger, rig = Ledger(), Rig(arguments.prefix)
    cloud = PiecesInNamespaces(arguments.programs, rig, arguments.transport_url, arguments.database_url, arguments.libvirt_uri)
    ledger.part(str(cloud))
    scenario = Scenario(cloud, rig, arguments.image)
    try:
        ledger.step("starts and is healthy", cloud.start, 1)
        if not ledger.failed:
            clean = cloud.environment()
            os.environ.clear()
            os.environ.update(clean)
            drive(scenario, ledger, arguments.part or PARTS)
        if ledger.failed:
            print(f"\nthe last lines of the services' logs:\n{cloud.log_tail(15)}")
            if arguments.keep:
                input(f"kept: {cloud.state}; return ends it ")
    finally:
        cloud.stop()
        rig.end_forwarders()
        if not arguments.keep:
            cloud.remove()
    print(f"\nguests: {ledger.passed} passed, {ledger.failed} failed", flush=True)
    return 1 if ledger.failed else 0


if __name__ == "__main__":
    sys.exit(main())
