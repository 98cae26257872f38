"""What image and flavor ask of a machine, as a guest finds it: firmware, an agent, devices, limits."""

import time

from guests import BOOT_SECONDS, Shell
from ledger import expect, expect_equal, wait_until

WRITTEN = 1 << 20
SPECS = {"hw:watchdog_action": "none", "hw_rng:allowed": "True", "hw_rng:rate_bytes": "2048", "hw_rng:rate_period": "1000",
         "quota:disk_write_bytes_sec": str(WRITTEN)}
# Vendor and device of Intel's watchdog timer, and the bus that has it.
WATCHDOG = "cat /sys/bus/pci/devices/*/uevent | grep -c PCI_ID=8086:25AB"
HASH = "sed -n 's/^root:\\([^:]*\\):.*/\\1/p' /etc/shadow"


class Hardware:
    """One server, of an image and a flavor of its own."""

    def __init__(self, scenario):
        self.scenario, self.cloud = scenario, scenario.cloud

    @property
    def compute(self):
        return self.scenario.demo.connection.compute

    def xml(self):
        host = self.scenario.admin.connection.compute.get_server(self.guest.id).compute_host
        return self.cloud.virsh(int(host.rsplit("-", 1)[1]), "dumpxml", self.guest.id)

    # ---- the steps

    def ask(self):
        """Firmware takes its time: nobody waits for it yet."""
        scenario = self.scenario
        self.image = scenario.upload("uefi", hw_firmware_type="uefi", hw_qemu_guest_agent="yes")
        flavor = scenario.admin.connection.compute.create_flavor(name="hardware", ram=192, vcpus=1, disk=1)
        scenario.admin.connection.compute.create_flavor_extra_specs(flavor, SPECS)
        self.guest = scenario.demo.boot("hardware", networks=[{"uuid": scenario.net.id}], key_name="key", image=self.image,
                                        flavor=flavor.id)
        return True

    def uefi(self):
        """The guest was started by that firmware, and has its services."""
        self.scenario.demo.wait(self.guest)
        expect("OVMF_CODE" in self.xml(), "the domain has no such firmware")
        self.guest.says("guest: boot finished", BOOT_SECONDS)
        port = next(self.scenario.demo.connection.network.ports(device_id=self.guest.id))
        self.address = self.scenario.demo.connection.network.create_ip(floating_network_id=self.scenario.outer.id, port_id=port.id)
        self.shell = Shell(self.scenario.rig, self.scenario.key, self.address.floating_ip_address)
        expect_equal(self.shell.opens(120), "hardware", "name of the guest that answers")
        expect("EFI" in self.shell.run("ls /sys/firmware/efi && echo EFI"), "it has no firmware of that kind")

    def devices(self):
        """A source of entropy that gives some, and a watchdog."""
        expect_equal(self.shell.run("cat /sys/class/misc/hw_random/rng_current").strip(), "virtio_rng.0", "source of entropy")
        got = self.shell.run("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | md5sum; ls -l /dev/hwrng").split()[0]
        expect(got != "d41d8cd98f00b204e9800998ecf8427e", "it gives nothing")
        expect_equal(self.shell.run(WATCHDOG).strip(), "1", "number of watchdogs")
        xml = self.xml()
        for part in ("<watchdog model='i6300esb' action='none'", "<rate bytes='2048' period='1000'/>"):
            expect(part in xml, f"{part} is not in {xml}")

    def limits(self):
        """What the guest writes is as slow as its flavor says."""
        expect(f"<write_bytes_sec>{WRITTEN}<" in self.xml(), "the domain has no such limit")
        began = time.monotonic()
        self.shell.run("dd if=/dev/urandom of=/data/limited bs=1M count=4 conv=fsync 2>/dev/null && rm /data/limited", 60)
        took = time.monotonic() - began
        expect(took > 3, f"4 MiB were written in {took:.1f} s")

    def password(self):
        """Set by the agent in there."""
        before = self.shell.run(HASH)
        self.compute.change_server_password(self.guest.id, "n3w-Pa55")
        wait_until(lambda: self.shell.run(HASH) != before, 60, "the guest has another password")
        made = self.shell.run(f"h=$({HASH}); mkpasswd -m sha512 n3w-Pa55 \"$(echo \"$h\" | cut -d'$' -f3)\"; echo \"$h\"").split()
        expect_equal(made[0], made[1], "what the guest keeps of it")
        found = next(a for a in self.compute.server_actions(self.guest.id) if a.action == "changePassword")
        expect(found.message is None, f"changePassword: {found.message}")

    def end(self):
        """Its variables of the firmware go with it."""
        self.compute.delete_server(self.guest.id)
        wait_until(lambda: self.compute.find_server(self.guest.id) is None, 90, "it is gone")
        wait_until(lambda: not self.cloud.folders(self.guest.id), 30, "its files are gone")
        self.scenario.demo.connection.network.delete_ip(self.address)
        self.scenario.demo.connection.image.delete_image(self.image)


STEPS = ("uefi", "devices", "limits", "password", "end")


def begin(scenario, ledger):
    """Has it booted while something else is done; what `end` takes."""
    hardware = Hardware(scenario)
    return hardware if ledger.step("ask for firmware and devices", hardware.ask) else None


def end(hardware, ledger):
    ledger.part("hardware")
    for name in STEPS:
        ledger.step(name, getattr(hardware, name))
