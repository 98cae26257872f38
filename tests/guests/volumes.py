"""Disks that outlive servers, in guests that boot: what one writes, another reads on another host; and one boots from one."""

import contextlib
import json

from guests import Shell
from ledger import expect, expect_equal, wait_until
from moves import Moves

GIB = 1 << 30
WRITE = "printf %s {text} | dd of=/dev/{device} bs=4096 seek={block} conv=sync,fsync 2>/dev/null"
READ = "dd if=/dev/{device} bs=4096 skip={block} count=1 2>/dev/null | tr -d '\\0'"


class Volumes(Moves):
    """A server that is given a volume and moves, and one that boots from another and takes the first one over."""

    # ---- what the steps need

    @property
    def storage(self):
        return self.scenario.demo.connection.block_storage

    def status(self, volume, status, seconds=60):
        wait_until(lambda: self.storage.get_volume(volume).status == status, seconds, f"the volume is {status}")

    def reads(self, block, device="vdb"):
        return self.shell.run(READ.format(block=block, device=device))

    def writes(self, block, text, device="vdb"):
        self.shell.run(WRITE.format(block=block, text=text, device=device))

    def disk(self, volume):
        """Its name in the guest, by its serial."""
        look = f"grep -ls {volume[:20]} /sys/block/vd*/serial || true"
        return wait_until(lambda: self.shell.run(look).strip(), 60, "the guest sees the volume").split("/")[3]

    @contextlib.contextmanager
    def copy_of(self, snapshot):
        """The name in the guest of a volume made of a snapshot."""
        copy = self.storage.create_volume(name="copy", snapshot_id=snapshot, size=2).id
        self.status(copy, "available")
        self.compute.create_volume_attachment(self.guest.id, volume_id=copy)
        yield self.disk(copy)
        self.status(copy, "in-use")
        self.compute.delete_volume_attachment(self.guest.id, copy)
        self.status(copy, "available")
        self.storage.delete_volume(copy)

    # ---- the steps

    def attach(self):
        """A file that hosts share, plugged into a guest that runs: its serial is the volume's id, and what is written is read again."""
        self.data = self.storage.create_volume(name="data", size=1, volume_type="files").id
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
        """Another server, on the other host, boots over NBD from a volume made of the image, reads what the first one wrote, and has
        an empty disk besides."""
        scenario, first = self.scenario, self.guest
        mapping = [{"boot_index": 0, "uuid": scenario.image, "source_type": "image", "destination_type": "volume",
                    "volume_type": "nbd", "volume_size": 1, "delete_on_termination": True},
                   {"boot_index": -1, "uuid": self.data, "source_type": "volume", "destination_type": "volume"},
                   {"boot_index": -1, "source_type": "blank", "destination_type": "volume", "volume_size": 2,
                    "volume_type": "nbd", "delete_on_termination": True}]
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
        made = [self.storage.get_volume(one["id"]) for one in self.server().attached_volumes if one["id"] != self.data]
        self.root, self.blank = [volume.id for volume in sorted(made, key=lambda volume: volume.size)]
        disks = [self.disk(volume) for volume in (self.root, self.data, self.blank)]
        expect_equal(disks, ["vda", "vdb", "vdc"], "its disks, in order")
        expect_equal((self.reads(1), self.reads(2)), ("canary-1", "canary-2"), "what the first guest wrote")
        expect_equal(int(self.shell.run("cat /sys/block/vdc/size")) * 512, 2 * GIB, "size of the empty disk")
        expect_equal(self.shell.run("head -c 16777216 /dev/vdc | tr -d '\\0' | wc -c").strip(), "0", "bytes that are not zero on it")
        self.writes(1, "canary-blank", "vdc")
        self.shell.run("echo kept >/data/marker && sync")

    def evacuate(self):
        """Its host is declared dead: it starts elsewhere with the same disks, on which nobody else writes."""
        super().evacuate(forced=True)
        self.answers()
        expect_equal(self.shell.run("cat /data/marker").strip(), "kept", "the file on the volume that it boots from")
        expect_equal(self.reads(2), "canary-2", "what is on the other volume")

    def image(self):
        """While it runs: a snapshot of each of its disks, and an image that names them. What is written later is on none of them."""
        images = self.scenario.demo.connection.image
        # No snapshot is taken of a file that hosts share while a guest has it.
        self.detach()
        self.image_id = self.compute.create_server_image(self.guest.id, "of-volumes").id
        wait_until(lambda: images.get_image(self.image_id).status == "active", 60, "the image is active")
        self.rests()
        told = json.loads(images.get_image(self.image_id).properties["block_device_mapping"])
        self.snapshots = {self.storage.get_snapshot(one["snapshot_id"]).volume_id: one["snapshot_id"] for one in told}
        root = next(one["snapshot_id"] for one in told if one["boot_index"] == 0)
        expect_equal(set(self.snapshots), {self.root, self.blank}, "volumes of which the image has a snapshot")
        expect_equal(root, self.snapshots[self.root], "the snapshot that it boots from")
        self.writes(2, "later", self.disk(self.blank))
        with self.copy_of(self.snapshots[self.blank]) as copy:
            read = [self.reads(block, copy) for block in (1, 2)]
            expect_equal(read, ["canary-blank", ""], "what is on the snapshot of the disk that was empty")

    def rebuild(self):
        """Another image takes the place of what is on its root disk; its other disk, and the snapshot of the root disk, stay."""
        image = self.scenario.upload("another")
        told = self.compute.post(f"/servers/{self.guest.id}/action", json={"rebuild": {"imageRef": image}}, microversion="2.93")
        expect_equal(told.status_code, 202, f"answer to a rebuild ({told.text})")
        self.becomes("ACTIVE", 180)
        self.answers()
        self.shell.fails("cat /data/marker")
        expect_equal((self.disk(self.root), self.boots()), ("vda", 1), "root disk and boots that it counts")
        expect_equal(self.reads(2, self.disk(self.blank)), "later", "what is on its other disk")
        expect_equal(self.storage.get_volume(self.root).volume_image_metadata["image_id"], image, "what its root disk is made of")
        with self.copy_of(self.snapshots[self.root]) as copy:
            kept = self.shell.run(f"mount -t ext4 -o ro /dev/{copy}2 /mnt && cat /mnt/marker && umount /mnt")
            expect_equal(kept.strip(), "kept", "the file on the snapshot of what it was")
        for one in (image, self.image_id):
            self.scenario.demo.connection.image.delete_image(one)
        for snapshot in self.snapshots.values():
            self.storage.delete_snapshot(snapshot)
        wait_until(lambda: not list(self.storage.snapshots()), 60, "the snapshots are gone")

    def delete(self):
        """The volumes that were made for the server go with it; the other one stays, and is free."""
        wait_until(lambda: self.admin.get_server(self.guest.id).task_state is None, 60, "nothing is done to it")
        for guest in (self.guest, self.first):
            self.compute.delete_server(guest.id)
            wait_until(lambda: self.compute.find_server(guest.id) is None, 90, "it is gone")
        self.status(self.data, "available")
        wait_until(lambda: [one.id for one in self.storage.volumes()] == [self.data], 60, "the other volumes are gone")
        self.storage.delete_volume(self.data)
        wait_until(lambda: not list(self.storage.volumes()), 60, "all volumes are gone")
        self.connection.close()
        self.scenario.demo.connection.network.delete_ip(self.address)


STEPS = ("attach", "grow", "live_migrate", "stop_and_start", "detach", "boot_from_volume", "evacuate", "image", "rebuild", "delete")


def drive(scenario, ledger):
    """All steps, in order, as long as there is a guest."""
    ledger.part("volumes")
    volumes = Volumes(scenario)
    if ledger.step("boot", volumes.boot) is None:
        return
    for name in STEPS:
        ledger.step(name.replace("_", " "), getattr(volumes, name))
