"""Disks that outlive servers, in guests that boot: what one writes, another reads on another host; and one boots from one."""

from guests import Shell
from ledger import expect, expect_equal, wait_until
from moves import Moves

GIB = 1 << 30
WRITE = "printf %s {text} | dd of=/dev/vdb bs=4096 seek={block} conv=sync,fsync 2>/dev/null"
READ = "dd if=/dev/vdb bs=4096 skip={block} count=1 2>/dev/null | tr -d '\\0'"


class Volumes(Moves):
    """A server that is given a volume and moves, and one that boots from another and takes the first one over."""

    # ---- what the steps need

    @property
    def storage(self):
        return self.scenario.demo.connection.block_storage

    def status(self, volume, status, seconds=60):
        wait_until(lambda: self.storage.get_volume(volume).status == status, seconds, f"the volume is {status}")

    def reads(self, block):
        return self.shell.run(READ.format(block=block))

    def writes(self, block, text):
        self.shell.run(WRITE.format(block=block, text=text))

    # ---- the steps

    def attach(self):
        """Plugged into a guest that runs: its serial is the volume's id, and what is written to it is read again."""
        self.data = self.storage.create_volume(name="data", size=1).id
        self.status(self.data, "available")
        self.compute.create_volume_attachment(self.guest.id, volume_id=self.data)
        self.status(self.data, "in-use")
        wait_until(lambda: "vdb" in self.shell.run("ls /sys/block"), 60, "the guest sees a disk")
        expect_equal(self.shell.run("cat /sys/block/vdb/serial").strip(), self.data[:20], "serial of the disk")
        self.writes(1, "canary-1")
        expect_equal(self.reads(1), "canary-1", "what was written")
        self.action("attach_volume")

    def grow(self):
        """The guest sees its new size."""
        self.storage.post(f"/volumes/{self.data}/action", json={"os-extend": {"new_size": 2}}, microversion="3.42")
        wait_until(lambda: int(self.shell.run("cat /sys/block/vdb/size")) * 512 == 2 * GIB, 60, "the guest sees that it has grown")
        self.status(self.data, "in-use")

    def live_migrate(self):
        """It goes along, and is not copied."""
        self.connection.goes_on()
        super().live_migrate()
        expect_equal(self.reads(1), "canary-1", "what was written on the other host")
        self.writes(2, "canary-2")

    def stop_and_start(self):
        self.connection.close()
        self.compute.stop_server(self.guest.id)
        self.becomes("SHUTOFF")
        self.compute.start_server(self.guest.id)
        self.becomes("ACTIVE")
        self.answers()
        expect_equal(self.reads(2), "canary-2", "what was written before it was off")

    def detach(self):
        """The guest loses it, and it is free."""
        self.compute.delete_volume_attachment(self.guest.id, self.data)
        self.status(self.data, "available")
        expect("vdb" not in self.shell.run("ls /sys/block"), "the guest still has the disk")

    def boot_from_volume(self):
        """Another server, on the other host, boots from a volume made of the image, and reads what the first one wrote."""
        scenario, first = self.scenario, self.guest
        mapping = [{"boot_index": 0, "uuid": scenario.image, "source_type": "image", "destination_type": "volume",
                    "volume_size": 1, "delete_on_termination": True},
                   {"boot_index": -1, "uuid": self.data, "source_type": "volume", "destination_type": "volume"}]
        server = self.compute.create_server(
            name="booted", flavor_id=scenario.flavor, networks=[{"uuid": scenario.net.id}], key_name="key",
            block_device_mapping=mapping, scheduler_hints={"different_host": [first.id]})
        other = type(first)(self.cloud, scenario.demo.connection, server)
        scenario.demo.wait(other)
        here = self.host()
        self.first, self.guest = first, other
        expect(self.host() != here, "both are on one host")
        port = next(scenario.demo.connection.network.ports(device_id=other.id))
        scenario.demo.connection.network.update_ip(self.address, port_id=port.id)
        self.shell = Shell(self.rig, scenario.key, self.address.floating_ip_address)
        wait_until(lambda: self.shell.opens(120) == "booted", 120, "the other guest answers")
        self.root = next(one["id"] for one in self.server().attached_volumes if one["id"] != self.data)
        expect_equal(self.shell.run("cat /sys/block/vda/serial").strip(), self.root[:20], "serial of the disk that it booted from")
        expect_equal((self.reads(1), self.reads(2)), ("canary-1", "canary-2"), "what the first guest wrote")
        self.shell.run("echo kept >/data/marker && sync")

    def evacuate(self):
        """Its host is declared dead: it starts elsewhere with the same disks, on which nobody else writes."""
        super().evacuate(forced=True)
        self.answers()
        expect_equal(self.shell.run("cat /data/marker").strip(), "kept", "the file on the volume that it boots from")
        expect_equal(self.reads(2), "canary-2", "what is on the other volume")

    def delete(self):
        """The volume that was made for the server goes with it; the other one stays, and is free."""
        wait_until(lambda: self.admin.get_server(self.guest.id).task_state is None, 60, "nothing is done to it")
        for guest in (self.guest, self.first):
            self.compute.delete_server(guest.id)
            wait_until(lambda: self.compute.find_server(guest.id) is None, 90, "it is gone")
        self.status(self.data, "available")
        wait_until(lambda: [one.id for one in self.storage.volumes()] == [self.data], 60, "the other volume is gone")
        self.storage.delete_volume(self.data)
        wait_until(lambda: not list(self.storage.volumes()), 60, "all volumes are gone")
        self.connection.close()
        self.scenario.demo.connection.network.delete_ip(self.address)


STEPS = ("attach", "grow", "live_migrate", "stop_and_start", "detach", "boot_from_volume", "evacuate", "delete")


def drive(scenario, ledger):
    """All steps, in order, as long as there is a guest."""
    ledger.part("volumes")
    volumes = Volumes(scenario)
    if ledger.step("boot", volumes.boot) is None:
        return
    for name in STEPS:
        ledger.step(name.replace("_", " "), getattr(volumes, name))
