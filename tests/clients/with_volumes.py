"""Volumes by themselves and of servers: the `openstack volume` and `server` commands and openstacksdk."""

import openstack

from cli import Command, Shell
from ledger import expect, expect_equal, wait_until

JSON = ("-f", "json")
ODD = "na\u00efve \"disk\" <&> \u2603"


class WithVolumes:
    """The steps; each cleans up after itself."""

    def __init__(self, setting):
        self.setting = setting
        self.demo = openstack.connect(cloud="nova-demo")
        self.admin = openstack.connect(cloud="nova")
        self.shell = Shell(setting.cloud, "nova-demo")
        self.operator = Shell(setting.cloud, "nova")
        self.alone = Command(setting.cloud, "nova-demo")

    def close(self):
        self.shell.close()
        self.operator.close()

    def settled(self, name, status="available", kind="volume", seconds=60):
        words = ("volume", "snapshot") if kind == "snapshot" else ("volume",)
        def looked():
            shown = self.shell(*words, "show", name, *JSON)
            return shown if shown["status"] == status else None
        return wait_until(looked, seconds, f"{kind} {name} is {status}")

    def gone(self, name, kind=("volume",), seconds=60):
        wait_until(lambda: not [one for one in self.shell(*kind, "list", *JSON) if one["Name"] == name], seconds, f"{name} is gone")

    def life(self):
        # The interactive command takes such words apart.
        made = self.alone("volume", "create", "--size", "1", "--description", ODD, "--property", "a=b", "v1", *JSON)
        expect_equal(made["size"], 1, "size")
        shown = self.settled("v1")
        expect_equal((shown["description"], shown["properties"]), (ODD, {"a": "b"}), "what was given")
        self.shell("volume", "set", "--name", "v2", "--bootable", "--property", "c=d", "v1")
        shown = self.settled("v2")
        expect_equal((shown["bootable"], shown["properties"]), (True, {"a": "b", "c": "d"}), "what was set")
        self.shell("volume", "unset", "--property", "a", "v2")
        self.shell("volume", "set", "--size", "2", "v2")
        expect_equal(self.settled("v2")["size"], 2, "size after it has grown")
        listed = self.shell("volume", "list", "--long", *JSON)
        expect_equal([(one["Name"], one["Status"], one["Size"]) for one in listed], [("v2", "available", 2)], "the list")
        self.shell("volume", "delete", "v2")
        self.gone("v2")

    def copies(self):
        self.shell("volume", "create", "--size", "1", "origin")
        self.settled("origin")
        self.shell("volume", "snapshot", "create", "--volume", "origin", "moment")
        self.settled("moment", kind="snapshot")
        self.shell("volume", "create", "--snapshot", "moment", "--size", "2", "of-snapshot")
        self.shell("volume", "create", "--source", "origin", "of-volume")
        expect_equal(self.settled("of-snapshot")["size"], 2, "size of what is made of a snapshot")
        expect_equal(self.settled("of-volume")["size"], 1, "size of what is made of a volume")
        self.shell("volume", "delete", "of-snapshot", "of-volume")
        refused = self.shell("volume", "delete", "origin")
        expect("dependent snapshots" in refused or "invalid" in refused.lower() or "Failed" in refused, f"the refusal says: {refused}")
        self.shell("volume", "delete", "--purge", "origin")
        for name in ("origin", "of-snapshot", "of-volume"):
            self.gone(name)
        self.gone("moment", ("volume", "snapshot"))

    def images(self):
        image = self.demo.create_image("volume-image", filename=str(self.setting.image), wait=True, timeout=60,
                                       disk_format=self.setting.disk_format, container_format="bare")
        self.shell("volume", "create", "--image", "volume-image", "--size", "1", "of-image")
        shown = self.settled("of-image", seconds=120)
        expect_equal(shown["bootable"], True, "bootable")
        expect_equal(shown["volume_image_metadata"]["image_id"], image.id, "the image that it remembers")
        self.demo.block_storage.upload_volume_to_image(shown["id"], "from-volume", disk_format="raw", container_format="bare")
        def is_there():
            found = self.demo.image.find_image("from-volume")
            return found if found and found.status == "active" else None
        made = wait_until(is_there, 120, "the image of a volume")
        expect(made.size >= self.setting.image.stat().st_size, f"the image has {made.size} bytes")
        self.settled("of-image")
        self.demo.image.delete_image(made)
        self.demo.image.delete_image(image)
        self.shell("volume", "delete", "of-image")
        self.gone("of-image")

    def transfers(self):
        self.shell("volume", "create", "--size", "1", "gift")
        self.settled("gift")
        offer = self.shell("volume", "transfer", "request", "create", "--name", "offer", "gift", *JSON)
        expect_equal([one["Name"] for one in self.shell("volume", "transfer", "request", "list", *JSON)], ["offer"], "offers")
        self.operator("volume", "transfer", "request", "accept", "--auth-key", offer["auth_key"], offer["id"])
        expect_equal(self.shell("volume", "list", *JSON), [], "what is left")
        self.operator("volume", "delete", "gift")
        wait_until(lambda: not self.operator("volume", "list", *JSON), 60, "the gift is gone")

    def types(self):
        self.operator("volume", "type", "create", "--property", "volume_backend_name=files", "--multiattach", "several")
        names = [one["Name"] for one in self.shell("volume", "type", "list", *JSON)]
        expect_equal(sorted(names), ["__DEFAULT__", "several"], "types")
        self.shell("volume", "create", "--size", "1", "--type", "several", "shared")
        expect_equal(self.settled("shared")["multiattach"], True, "multiattach")
        self.shell("volume", "delete", "shared")
        self.gone("shared")
        self.operator("volume", "type", "delete", "several")

    def operators(self):
        services = self.operator("volume", "service", "list", *JSON)
        expect_equal([(one["Binary"], one["Status"], one["State"]) for one in services], [("cinder-volume", "enabled", "up")], "services")
        host = services[0]["Host"]
        self.operator("volume", "service", "set", "--disable", "--disable-reason", "repair", host, "cinder-volume")
        self.operator("volume", "service", "set", "--enable", host, "cinder-volume")
        expect(self.operator("volume", "backend", "pool", "list", *JSON)[0]["Name"].startswith(host), "the pool's name")
        zones = self.shell("availability", "zone", "list", "--volume", *JSON)
        expect_equal(zones, [{"Zone Name": "nova", "Zone Status": "available"}], "zones")
        self.operator("quota", "set", "--volumes", "3", "--gigabytes", "5", "demo")
        limits = {one["Name"]: one["Value"] for one in self.shell("limits", "show", "--absolute", *JSON)}
        expect_equal((limits["max_total_volumes"], limits["max_total_volume_gigabytes"]), (3, 5), "limits")
        refused = self.shell("volume", "create", "--size", "6", "too-large")
        expect("exceeds allowed gigabytes quota" in refused, f"the refusal says: {refused}")
        self.operator("quota", "set", "--volumes", "10", "--gigabytes", "1000", "demo")

    def attachments(self):
        """As Nova uses them."""
        volume = self.demo.block_storage.create_volume(size=1, name="held")
        self.demo.block_storage.wait_for_status(volume, "available", wait=60)
        server = "00000000-0000-4000-8000-0000000000aa"
        held = self.demo.block_storage.create_attachment(volume, connector={}, instance=server)
        connector = {"host": "elsewhere", "ip": "192.0.2.1", "os_type": "linux", "platform": "x86_64"}
        held = self.demo.block_storage.update_attachment(held.id, connector=connector)
        expect_equal(held.connection_info["volume_id"], volume.id, "how it is come to")
        self.demo.block_storage.complete_attachment(held.id)
        expect_equal(self.demo.block_storage.get_volume(volume.id).status, "in-use", "status")
        listed = [one.id for one in self.demo.block_storage.attachments()]
        expect_equal(listed, [held.id], "attachments")
        self.demo.block_storage.delete_attachment(held.id)
        self.demo.block_storage.wait_for_status(self.demo.block_storage.get_volume(volume.id), "available", wait=60)
        self.demo.block_storage.delete_volume(volume.id)
        self.demo.block_storage.wait_for_delete(volume, wait=60)

    def servers(self):
        """Added to a server, removed from it, and booted from."""
        image = self.demo.create_image("boot-image", filename=str(self.setting.image), wait=True, timeout=60,
                                       disk_format=self.setting.disk_format, container_format="bare")
        flavor = self.admin.compute.create_flavor(name="volumes-flavor", ram=self.setting.ram_mb, vcpus=1, disk=1)
        server = self.demo.compute.create_server(name="with-volume", image_id=image.id, flavor_id=flavor.id, networks="none")
        server = self.demo.compute.wait_for_server(server, wait=120)
        self.shell("volume", "create", "--size", "1", "data")
        self.settled("data")
        self.shell("server", "add", "volume", "with-volume", "data")
        self.settled("data", "in-use")
        shown = self.demo.compute.get_server(server.id)
        volume = self.demo.block_storage.find_volume("data")
        expect_equal([one["id"] for one in shown.attached_volumes], [volume.id], "volumes that the server shows")
        listed = self.shell("server", "volume", "list", "with-volume", *JSON)
        expect_equal([one["Volume ID"] for one in listed], [volume.id], "volumes of the server")
        attachment = next(iter(self.demo.compute.volume_attachments(server)))
        expect_equal(attachment.volume_id, volume.id, "the attachment")
        self.shell("server", "remove", "volume", "with-volume", "data")
        self.settled("data")
        self.demo.compute.delete_server(server)
        self.demo.compute.wait_for_delete(server, wait=120)
        mapping = [{"boot_index": 0, "uuid": image.id, "source_type": "image", "destination_type": "volume", "volume_size": 1,
                    "delete_on_termination": True}]
        booted = self.demo.compute.create_server(name="booted", flavor_id=flavor.id, networks="none", block_device_mapping=mapping)
        booted = self.demo.compute.wait_for_server(booted, wait=180)
        expect_equal(len(booted.attached_volumes), 1, "the volume that it boots from")
        root = self.demo.block_storage.get_volume(booted.attached_volumes[0]["id"])
        expect_equal((root.status, root.is_bootable), ("in-use", True), "its root volume")
        self.demo.compute.delete_server(booted.id)
        wait_until(lambda: [one.name for one in self.demo.block_storage.volumes()] == ["data"], 120, "its volume goes with it")
        self.shell("volume", "delete", "data")
        self.gone("data")
        self.admin.compute.delete_flavor(flavor)
        self.demo.delete_image(image.id, wait=True)


def run(setting, ledger):
    ledger.part("volumes")
    steps = WithVolumes(setting)
    try:
        ledger.step("a volume is made, changed, grown, removed", steps.life)
        ledger.step("snapshots, and volumes of snapshots and volumes", steps.copies)
        ledger.step("volumes of images, images of volumes", steps.images)
        ledger.step("a volume changes hands", steps.transfers)
        ledger.step("types", steps.types)
        ledger.step("services, pools, zones, quotas", steps.operators)
        ledger.step("attachments as compute uses them", steps.attachments)
        ledger.step("volumes of servers, and servers that boot from them", steps.servers)
    finally:
        steps.close()
