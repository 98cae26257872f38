"""The life of a server on real hosts: what is done to it after its boot, proven by what its guest says.

One guest goes through all of it. It counts its boots on a disk of its own (`boots=N` on the console), keeps a file that the
test writes, and serves a shell that stays open where a guest must not notice anything.
"""

import re
import subprocess
import time

from guests import BOOT_SECONDS, Shell
from ledger import expect, expect_equal, wait_until


class Connection:
    """A shell in the guest that writes the guest's uptime every second for as long as it is open."""

    def __init__(self, shell, path):
        self.path = path
        self.file = path.open("wb")
        words = shell.words("while sleep 1; do cut -d' ' -f1 /proc/uptime; done")
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.file, stderr=subprocess.DEVNULL,
                                        start_new_session=True)

    def uptimes(self):
        return [float(line) for line in self.path.read_text().split("\n")[:-1] if re.fullmatch(r"[0-9.]+", line)]

    def goes_on(self, seconds=30):
        """Waits for more of it, over the same connection."""
        seen = len(self.uptimes())
        wait_until(lambda: len(self.uptimes()) > seen + 1 or self.process.poll() is not None, seconds, "the connection goes on")
        expect(self.process.poll() is None, "the connection ended")
        times = self.uptimes()
        expect(times == sorted(times), f"the guest's uptime went back: {times}")
        return times[-1]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.file.close()


class Life:
    """One server; `scenario` has the tenants, the network, the image and the key."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.cloud, self.rig = scenario.cloud, scenario.rig
        self.connection = None

    # ---- what the steps need

    @property
    def compute(self):
        return self.scenario.demo.connection.compute

    @property
    def admin(self):
        return self.scenario.admin.connection.compute

    def server(self):
        return self.compute.get_server(self.guest.id)

    def host(self):
        return self.admin.get_server(self.guest.id).compute_host

    def becomes(self, status, seconds=120):
        """Waits for the status; a fault ends it."""
        def look():
            server = self.server()
            if server.status == "ERROR" and status != "ERROR":
                raise AssertionError(f"it is in ERROR: {server.fault}")
            return server.status == status and (self.admin.get_server(self.guest.id).task_state is None)
        wait_until(look, seconds, f"the server is {status}")

    def rests(self, seconds=120):
        """Waits until nothing is being done to it."""
        wait_until(lambda: self.admin.get_server(self.guest.id).task_state is None, seconds, "nothing is done to it any more")

    def booted(self, boots, seconds=BOOT_SECONDS):
        """Waits for the boot with that number."""
        return self.guest.says(rf"guest: up: kernel \S+ cpus=(\d+) mem_kb=(\d+) boots={boots} ", seconds)

    def answers(self):
        self.shell.opens(120)

    def action(self, name):
        """The newest action of that name: it must have ended well."""
        found = next(a for a in self.compute.server_actions(self.guest.id) if a.action == name)
        expect(found.message is None, f"{name}: {found.message}")

    # ---- the steps

    def boot(self):
        """A server with a floating address, a shell in it, a file that it keeps."""
        scenario = self.scenario
        self.guest = scenario.demo.boot("life", networks=[{"uuid": scenario.net.id}], key_name="key",
                                        image=scenario.image, flavor=scenario.flavor)
        scenario.demo.wait(self.guest)
        port = next(scenario.demo.connection.network.ports(device_id=self.guest.id))
        self.address = scenario.demo.connection.network.create_ip(floating_network_id=scenario.outer.id, port_id=port.id)
        self.shell = Shell(self.rig, scenario.key, self.address.floating_ip_address)
        self.booted(1)
        expect_equal(self.shell.opens(120), "life", "name of the guest that answers")
        self.shell.run("echo kept >/data/marker && sync")
        self.connection = Connection(self.shell, self.cloud.state / "uptimes")
        return True

    def pause(self):
        self.compute.pause_server(self.guest.id)
        self.becomes("PAUSED")
        seen = len(self.connection.uptimes())
        time.sleep(3)
        expect(len(self.connection.uptimes()) <= seen + 1, "a paused guest goes on")
        self.compute.unpause_server(self.guest.id)
        self.becomes("ACTIVE")
        self.connection.goes_on()

    def suspend(self):
        before = self.connection.goes_on()
        self.compute.suspend_server(self.guest.id)
        self.becomes("SUSPENDED")
        self.compute.resume_server(self.guest.id)
        self.becomes("ACTIVE")
        expect(self.connection.goes_on(60) > before, "the uptime goes on")

    def lock(self):
        self.compute.lock_server(self.guest.id, locked_reason="mine")
        try:
            expect(self.server().is_locked, "it is not locked")
        finally:
            self.compute.unlock_server(self.guest.id)

    def diagnostics(self):
        told = self.admin.get_server_diagnostics(self.guest.id)
        expect_equal((told.state, told.driver, told.num_cpus), ("running", "libvirt", 1), "diagnostics")
        expect(told.cpu_details and told.nic_details and told.disk_details, f"no counters: {told}")

    def image(self):
        """An image of the guest while it runs; the guest goes on."""
        self.image_id = self.compute.create_server_image(self.guest.id, "life-image").id
        images = self.scenario.demo.connection.image
        wait_until(lambda: images.get_image(self.image_id).status == "active", 180, "the image is active")
        self.rests()
        self.connection.goes_on()

    def live_migrate(self):
        """The guest is on the other host, and did not notice: same uptime, same connection."""
        before, host = self.connection.goes_on(), self.host()
        self.admin.live_migrate_server(self.guest.id, host=None, block_migration="auto")
        wait_until(lambda: self.host() != host, 180, "it is on the other host")
        self.becomes("ACTIVE")
        expect(self.connection.goes_on(60) > before, "the uptime goes on")
        self.action("live-migration")

    def stop_and_start(self):
        self.connection.close()
        self.compute.stop_server(self.guest.id)
        self.becomes("SHUTOFF")
        self.compute.start_server(self.guest.id)
        self.becomes("ACTIVE")
        self.booted(2)

    def resize(self):
        """Larger, on the other host; the file is still there."""
        host = self.host()
        larger = self.scenario.admin.connection.compute.create_flavor(name="larger", ram=256, vcpus=2, disk=2)
        self.compute.resize_server(self.guest.id, larger.id)
        self.becomes("VERIFY_RESIZE", 240)
        expect(self.host() != host, "it is on the same host")
        told = self.booted(3)
        expect_equal(told.group(1), "2", "processors that the guest sees")
        expect(int(told.group(2)) > 200_000, f"the guest sees {told.group(2)} KiB of memory")
        self.answers()
        expect_equal(self.shell.run("cat /data/marker").strip(), "kept", "the file")
        self.compute.confirm_server_resize(self.guest.id)
        self.becomes("ACTIVE")

    def revert(self):
        """Back again to what it was, where it was."""
        host = self.host()
        smaller = self.scenario.admin.connection.compute.create_flavor(name="smaller", ram=192, vcpus=1, disk=2)
        self.compute.resize_server(self.guest.id, smaller.id)
        self.becomes("VERIFY_RESIZE", 240)
        self.compute.revert_server_resize(self.guest.id)
        self.becomes("ACTIVE", 240)
        expect_equal(self.host(), host, "host after the way back")
        expect_equal(self.server().flavor.vcpus, 2, "processors of the flavor after the way back")
        self.answers()
        expect_equal(self.shell.run("cat /data/marker").strip(), "kept", "the file")

    def boots(self):
        return int(self.shell.run("cat /data/boot_count"))

    def rescue(self):
        """Another disk is booted; its own is there beside it, and comes back."""
        before = self.boots()
        self.compute.rescue_server(self.guest.id, image=self.scenario.image)
        self.becomes("RESCUE")
        # Which of the two its boots are counted on is not said: both have that label.
        self.guest.says("guest: disk vdb bytes=", BOOT_SECONDS)
        self.compute.unrescue_server(self.guest.id)
        self.becomes("ACTIVE")
        self.answers()
        self.shell.run("test ! -e /dev/vdb")
        expect(self.boots() > before, "it counts its boots on another disk")
        expect_equal(self.shell.run("cat /data/marker").strip(), "kept", "the file")

    def shelve(self):
        """Off every host, as an image; back with its disk and addresses."""
        before = self.boots()
        addresses = self.guest.addresses()
        self.compute.shelve_server(self.guest.id)
        self.becomes("SHELVED_OFFLOADED", 240)
        expect_equal(self.host(), None, "host of a shelved server")
        self.compute.unshelve_server(self.guest.id)
        self.becomes("ACTIVE", 240)
        self.booted(before + 1)
        expect_equal(self.guest.addresses(), addresses, "addresses")
        self.answers()
        expect_equal(self.shell.run("cat /data/marker").strip(), "kept", "the file")

    def rebuild(self):
        """Its disk is made anew: the file is gone, the address stays. From its own image the file comes back."""
        addresses = self.guest.addresses()
        self.compute.rebuild_server(self.guest.id, image=self.scenario.image)
        self.becomes("ACTIVE", 180)
        self.booted(1)
        expect_equal(self.guest.addresses(), addresses, "addresses")
        self.answers()
        self.shell.fails("cat /data/marker")

    def stops_itself(self):
        """A guest that shuts down by itself is SHUTOFF at once."""
        subprocess.run(self.shell.words("poweroff"), capture_output=True, timeout=20, check=False)
        wait_until(lambda: self.server().status == "SHUTOFF", 60, "it is SHUTOFF")
        self.compute.start_server(self.guest.id)
        self.becomes("ACTIVE")

    def evacuate(self):
        """Its host is frozen and declared dead: the guest is rebuilt elsewhere; the host that wakes up removes its copy."""
        host = self.host()
        number = int(host.rsplit("-", 1)[1])
        service = next(s for s in self.cloud.services if s.name == f"nova-compute-{number}")
        record = next(s for s in self.admin.services(binary="nova-compute") if s.host == host)
        service.process.send_signal(19)
        try:
            self.admin.update_service_forced_down(record, forced=True)
            self.admin.evacuate_server(self.guest.id)
            wait_until(lambda: self.host() != host, 180, "it is on the other host")
            self.rests()
        finally:
            service.process.send_signal(18)
            self.admin.update_service_forced_down(record, forced=False)
        uri = self.cloud.libvirt_uris[number - 1]
        domains = lambda: subprocess.run(["virsh", "-c", uri, "list", "--all", "--uuid"], capture_output=True, text=True,
                                         timeout=30, check=True).stdout
        wait_until(lambda: self.guest.id not in domains(), 90, "the old host has removed its copy", pause=1)
        self.compute.start_server(self.guest.id)
        self.becomes("ACTIVE")

    def delete(self):
        """Nothing of it is left."""
        if self.connection:
            self.connection.close()
        self.compute.delete_server(self.guest.id)
        wait_until(lambda: self.compute.find_server(self.guest.id) is None, 90, "it is gone")
        self.scenario.demo.connection.network.delete_ip(self.address)
        self.scenario.demo.connection.image.delete_image(self.image_id)


STEPS = ("pause", "suspend", "lock", "diagnostics", "image", "live_migrate", "stop_and_start", "resize", "revert", "rescue",
         "shelve", "rebuild", "stops_itself", "evacuate", "delete")


def drive(scenario, ledger):
    """All steps, in order, as long as there is a guest."""
    ledger.part("the life of a server")
    life = Life(scenario)
    if ledger.step("boot", life.boot) is None:
        return
    for name in STEPS:
        ledger.step(name.replace("_", " "), getattr(life, name))
