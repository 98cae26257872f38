"""The life of a server on its host: what is done to it after its boot, proven by what its guest says.

One guest goes through all of it. It counts its boots on a disk of its own (`boots=N` on the console), keeps a file that the
test writes, and serves a shell that stays open where a guest must not notice anything.
"""

import json
import re
import subprocess
import time

import openstack

from cli import Command
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

    def told(self, what):
        """Its metadata, as the guest reads it, once they are so. The host remembers what the conductor said for 5 s."""
        asks = "wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"
        wait_until(lambda: what(json.loads(self.shell.run(asks))), 20, "its metadata tell of it", pause=1)

    def words(self):
        """Name, description, metadata and tags are edited; the guest reads those that are meant for it."""
        command = Command(self.cloud, "nova-demo")
        command("--os-compute-api-version", "2.90", "server", "set", "--property", "role=first", "--description", "of a test",
                "--hostname", "life-2", "--tag", "kept", self.guest.id)
        self.compute.set_server_metadata(self.guest.id, place="here")
        self.compute.add_tag_to_server(self.guest.id, "gone")
        self.compute.remove_tag_from_server(self.guest.id, "gone")
        server = self.server()
        expect_equal((server.description, server.hostname, server.tags), ("of a test", "life-2", ["kept"]), "what was written")
        self.compute.delete_server_metadata(self.guest.id, ["role"])
        self.told(lambda told: told.get("meta") == {"place": "here"} and told["hostname"].startswith("life-2"))

    def console_length(self):
        """The last lines alone, and they are the last ones of the whole."""
        last = self.compute.get_server_console_output(self.guest.id, length=5)["output"]
        expect_equal(len(last.splitlines()), 5, f"number of lines ({last!r})")
        wait_until(lambda: self.guest.console().endswith(self.compute.get_server_console_output(self.guest.id, length=5)["output"]),
                   10, "they are the last ones")

    def reset_state(self):
        """An administrator says that it is broken, and that it is not; the guest does not notice."""
        self.admin.reset_server_state(self.guest.id, "error")
        expect_equal(self.server().status, "ERROR", "status")
        self.admin.reset_server_state(self.guest.id, "active")
        self.becomes("ACTIVE")
        self.connection.goes_on()

    def crash_dump(self):
        """The guest is interrupted; it says so, and goes on, as nobody told it to dump."""
        self.compute.trigger_server_crash_dump(self.guest.id)
        self.guest.says(r"NMI received|Uhhuh. NMI", 60)
        self.action("trigger_crash_dump")
        self.connection.goes_on()

    def no_password(self):
        """Its image promises no agent in the guest that could set one: that is said at once, and nothing is begun."""
        before = {action.request_id for action in self.compute.server_actions(self.guest.id)}
        try:
            self.compute.change_server_password(self.guest.id, "n3w-Pa55")
        except openstack.exceptions.ConflictException as refused:
            expect("guest agent is not enabled" in str(refused), f"it says why: {refused}")
        else:
            expect(False, "a password was promised that nobody can set")
        expect_equal({action.request_id for action in self.compute.server_actions(self.guest.id)}, before, "actions")
        self.becomes("ACTIVE")
        self.connection.goes_on()

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

    def backup(self):
        """The second backup is the only one that is left."""
        images = self.scenario.demo.connection.image
        for number in (1, 2):
            self.compute.backup_server(self.guest.id, f"backup-{number}", "daily", 1)
            self.rests(180)
            self.action("createBackup")
        left = [image for image in images.images() if image.name.startswith("backup-")]
        expect_equal([(image.name, image.status) for image in left], [("backup-2", "active")], "backups that are left")
        images.delete_image(left[0])
        self.connection.goes_on()

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
        self.stable_rescue()
        self.answers()
        self.shell.run("test ! -e /dev/vdb && test ! -e /dev/sda")
        expect(self.boots() > before, "it counts its boots on another disk")
        expect_equal(self.shell.run("cat /data/marker").strip(), "kept", "the file")

    def stable_rescue(self):
        """As its image asks, the rescue disk has a place of its own, and the others keep theirs."""
        image = self.scenario.upload("stable", hw_rescue_device="disk", hw_rescue_bus="scsi")
        # It has only just begun, and would not hear that it is to shut down.
        with self.cloud.settings(DEFAULT={"shutdown_timeout": 1}):
            self.compute.rescue_server(self.guest.id, image=image)
            self.becomes("RESCUE")
        self.guest.says("guest: disk sda bytes=", BOOT_SECONDS)
        self.guest.says("guest: boot finished")
        boot = self.guest.console().rsplit("guest: up: ", 1)[1]
        expect_equal(re.findall(r"guest: disk (\w+) ", boot), ["vda", "sda"], "its disks")
        self.compute.unrescue_server(self.guest.id)
        self.becomes("ACTIVE")
        self.scenario.demo.connection.image.delete_image(image)

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
        """A guest that shuts down by itself is SHUTOFF two seconds after its end."""
        number = int(self.host().rsplit("-", 1)[1])
        subprocess.run(self.shell.words("poweroff"), capture_output=True, timeout=20, check=False)
        off = lambda: self.cloud.virsh(number, "domstate", self.guest.id) == "shut off"
        wait_until(off, 60, "its domain is off", pause=0.02)
        wait_until(lambda: self.server().status == "SHUTOFF", 2, "it is SHUTOFF", pause=0.02)
        self.compute.start_server(self.guest.id)
        self.becomes("ACTIVE")

    def soft_delete(self):
        """Kept for a while, and not running; its owner takes it back."""
        before = self.boots()
        with self.cloud.settings(DEFAULT={"reclaim_instance_interval": 3600}):
            self.compute.delete_server(self.guest.id)
            self.becomes("SOFT_DELETED")
            expect_equal(self.cloud.domains(self.guest.id, "--state-running"), [], "hosts on which it runs")
            self.compute.restore_server(self.guest.id)
            self.becomes("ACTIVE")
        self.answers()
        expect_equal(self.boots(), before + 1, "number of its boots")

    def delete(self):
        """Nothing of it is left, also where what is deleted is kept for a while: force was asked for."""
        if self.connection:
            self.connection.close()
        with self.cloud.settings(DEFAULT={"reclaim_instance_interval": 3600}):
            self.compute.delete_server(self.guest.id, force=True)
            wait_until(lambda: self.compute.find_server(self.guest.id) is None, 90, "it is gone")
        left = self.cloud.domains(self.guest.id), self.cloud.folders(self.guest.id)
        expect_equal(left, ([], []), "hosts that have something of it")
        self.scenario.demo.connection.network.delete_ip(self.address)
        self.scenario.demo.connection.image.delete_image(self.image_id)
