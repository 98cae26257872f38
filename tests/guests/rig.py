"""Compute hosts, the network between them and a piece of the world, all in network namespaces of our own.

    world  172.24.4.1 ─┐ public                      ┌─ 10.66.0.11  host 1
                       ├──────── fabric ─────────────┤
    hosts  172.24.4.2N ┘              underlay       ├─ 10.66.0.12  host 2
                                                     └─ 10.66.0.21  disks: volume hosts

The control services run outside. Hosts reach the broker and the API at the same 127.0.0.1:PORT as everybody, by a
forwarder that listens in their namespaces: what it carries is management, never a guest's packet.

    rig.py --prefix NAME up|down
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "clients"))

from ledger import Wrong  # noqa: E402

UNDERLAY = "10.66.0.{}"
PUBLIC = "172.24.4.{}"
DISKS = UNDERLAY.format(21)
WORLD = PUBLIC.format(1)


def run(*words, **more):
    """A command that must succeed; its output."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=more.pop("timeout", 30), check=False, **more)
    if done.returncode != 0:
        raise Wrong(f"{' '.join(words)}: {done.returncode}: {(done.stdout + done.stderr).strip()[-600:]}")
    return done.stdout


class Rig:
    """Namespaces `<prefix>-fabric`, `-world`, `-disks`, `-h1`, `-h2`."""

    def __init__(self, prefix, hosts=2):
        self.prefix = prefix
        self.hosts = hosts
        self.forwarders = []
        self.forwarded = set()

    def name(self, what):
        return f"{self.prefix}-{what}"

    def inside(self, what, *words):
        """The words of a command that runs in there."""
        return ["ip", "netns", "exec", self.name(what), *map(str, words)]

    def ask(self, what, *words, **more):
        return run(*self.inside(what, *words), **more)

    def up(self):
        for what in ("fabric", "world", "disks", *(f"h{n}" for n in range(1, self.hosts + 1))):
            run("ip", "netns", "add", self.name(what))
            self.ask(what, "ip", "link", "set", "lo", "up")
        for bridge in ("underlay", "public"):
            self.ask("fabric", "ip", "link", "add", "name", bridge, "type", "bridge")
            self.ask("fabric", "ip", "link", "set", bridge, "up")
        self._plug("world", "eth0", "public", f"{WORLD}/24")
        self._plug("disks", "eth0", "underlay", f"{DISKS}/24")
        for number in range(1, self.hosts + 1):
            self._plug(f"h{number}", "eth0", "underlay", f"{UNDERLAY.format(10 + number)}/24")
            self._plug(f"h{number}", "eth1", "public", f"{PUBLIC.format(20 + number)}/24")

    def _plug(self, what, device, bridge, address):
        end = f"{what}-{device}"
        self.ask("fabric", "ip", "link", "add", end, "type", "veth", "peer", "name", device, "netns", self.name(what))
        self.ask("fabric", "ip", "link", "set", end, "master", bridge, "up")
        self.ask(what, "ip", "address", "add", address, "dev", device)
        self.ask(what, "ip", "link", "set", device, "up")

    def forward(self, folder, ports, where=None):
        """Lets the hosts, or who else is named, reach 127.0.0.1:PORT of outside at the same address."""
        folder = pathlib.Path(folder)
        for port in ports:
            self._forwarder([], f"unix:{folder / str(port)}", f"tcp:{port}")
            for what in where or [f"h{number}" for number in range(1, self.hosts + 1)]:
                self._forwarder(self.inside(what), f"tcp:{port}", f"unix:{folder / str(port)}")

    def _forwarder(self, where, come, go):
        if (*where, come) in self.forwarded:
            return
        self.forwarded.add((*where, come))
        words = [*where, sys.executable, str(pathlib.Path(__file__).with_name("forward.py")), come, go]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        self.forwarders.append(process)
        if process.stdout.readline() != b"ready\n":
            raise Wrong(f"no forwarder from {come} to {go}")

    def end_forwarders(self):
        for process in self.forwarders:
            process.send_signal(signal.SIGTERM)
            process.wait()
        self.forwarders = []
        self.forwarded.clear()

    def down(self):
        """Removes all of it, also what an earlier run of this prefix left, and the namespaces that its hosts made."""
        self.end_forwarders()
        for name in run("ip", "netns", "list").split("\n"):
            name = name.split(" ")[0]
            if name.startswith(self.prefix):
                # What the hosts started outlives them on purpose.
                for pid in run("ip", "netns", "pids", name).split():
                    os.kill(int(pid), signal.SIGKILL)
                subprocess.run(["ip", "netns", "delete", name], check=False)


def main():
    parser = argparse.ArgumentParser(description="Make or remove the namespaces of compute hosts.")
    parser.add_argument("--prefix", required=True)
    parser.add_argument("verb", choices=("up", "down"))
    arguments = parser.parse_args()
    getattr(Rig(arguments.prefix), arguments.verb)()


if __name__ == "__main__":
    main()
