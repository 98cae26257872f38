"""Disks of several kinds in guests that boot on two hosts: shared, over NBD with TLS, over iSCSI; what one guest writes, the other
reads."""

import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

from guests import Shell
from ledger import Wrong, expect, expect_equal, wait_until
from rig import run

WRITE = "printf %s {text} | dd of=/dev/{device} bs=4096 seek={block} conv=sync,fsync 2>/dev/null"
# Not what the guest itself remembers of the disk.
READ = "sync; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/{device} bs=4096 skip={block} count=1 2>/dev/null | tr -d '\\0'"
# Written while the daemon that serves the disk is dead.
LARGE = b"canary\n" * (1 << 20)


class Storage:
    """Two guests on two hosts, and volume hosts beside the one that the cloud has."""

    def __init__(self, scenario):
        self.scenario, self.cloud, self.rig = scenario, scenario.cloud, scenario.rig
        self.demo = scenario.demo.connection
        self.shells, self.addresses = {}, []

    # ---- what the steps need

    @property
    def storage(self):
        return self.demo.block_storage

    def shell(self, guest):
        """A shell there; a floating address for it if it has none."""
        if guest.id not in self.shells:
            port = next(self.demo.network.ports(device_id=guest.id))
            address = next(iter(self.demo.network.ips(port_id=port.id)), None)
            if address is None:
                address = self.demo.network.create_ip(floating_network_id=self.scenario.outer.id, port_id=port.id)
                self.addresses.append(address)
            shell = Shell(self.rig, self.scenario.key, address.floating_ip_address)
            expect_equal(shell.opens(120), guest.name, "name of the guest that answers")
            self.shells[guest.id] = shell
        return self.shells[guest.id]

    def status(self, volume, status, seconds=60):
        wait_until(lambda: self.storage.get_volume(volume).status == status, seconds, f"the volume is {status}")

    def create(self, name, kind, **more):
        volume = self.storage.create_volume(name=name, size=1, volume_type=kind, **more).id
        self.status(volume, "available")
        return volume

    def attach(self, guest, volume):
        """The name of the device in the guest."""
        self.demo.compute.create_volume_attachment(guest.id, volume_id=volume)
        look = f"grep -ls {volume[:20]} /sys/block/vd*/serial || true"
        shell = self.shell(guest)
        device = wait_until(lambda: shell.run(look).strip(), 60, f"{guest.name} sees the volume").split("/")[3]
        self.status(volume, "in-use")
        return device

    def detach(self, guest, volume):
        self.demo.compute.delete_volume_attachment(guest.id, volume)
        held = lambda: [one["server_id"] for one in self.storage.get_volume(volume).attachments]
        wait_until(lambda: guest.id not in held(), 60, f"{guest.name} has given it back")

    def delete(self, *volumes):
        for volume in volumes:
            self.status(volume, "available")
            self.storage.delete_volume(volume)
        wait_until(lambda: not [v for v in volumes if self.storage.find_volume(v)], 60, "the volumes are gone")

    def writes(self, guest, device, block, text):
        self.shell(guest).run(WRITE.format(device=device, block=block, text=text))

    def reads(self, guest, device, block):
        return self.shell(guest).run(READ.format(device=device, block=block))

    def virsh(self, guest, *words):
        host = self.scenario.admin.connection.compute.get_server(guest.id).compute_host
        uri = self.cloud.libvirt_uris[int(host.rsplit("-", 1)[1]) - 1]
        return run("virsh", "-c", uri, *words, guest.id)

    @property
    def one(self):
        return self.scenario.one

    @property
    def two(self):
        return self.scenario.two

    # ---- the steps

    def volume_hosts(self):
        """Two more, a type for each, and certificates for the hosts of guests."""
        files, nbd = self.cloud.volume_host("nbd", name="nbd", tls_path=self.cloud.state / "nbd-tls")
        _, iscsi = self.cloud.volume_host("iscsi", name="iscsi")
        until = time.monotonic() + 60
        sick = [service.log_tail() for service in (nbd, iscsi) if not service.wait_healthy(until)]
        expect(not sick, "\n".join(sick))
        self.nbd = nbd
        for number in range(1, self.cloud.hosts + 1):
            made = self.cloud.manage(files, "volume", "certificate", f"compute-{number}")
            expect_equal(made.returncode, 0, f"exit code of the making of a certificate ({made.stderr})")
            for part in pathlib.Path(made.stdout.strip().splitlines()[-1]).iterdir():
                shutil.copy(part, self.cloud.libvirt_folder(number) / "nbd-tls")
        types = {"files": {"volume_backend_name": "files"},
                 "shared": {"volume_backend_name": "files", "multiattach": "<is> True"},
                 "nbd": {"volume_backend_name": "nbd"}, "iscsi": {"volume_backend_name": "iscsi"}}
        for name, specs in types.items():
            self.scenario.admin.connection.block_storage.create_type(name=name, extra_specs=specs)
        pools = lambda: {pool.name.split("@")[1].split("#")[0] for pool in self.scenario.admin.connection.block_storage.backend_pools()}
        wait_until(lambda: pools() >= {"nbd", "iscsi", "files"}, 30, "all pools are there")
        return True

    def shared(self):
        """Two guests on two hosts have one volume: each reads what the other wrote, and one keeps it when the other lets go."""
        volume = self.create("shared", "shared")
        here, there = self.attach(self.one, volume), self.attach(self.two, volume)
        self.writes(self.one, here, 1, "from-one")
        expect_equal(self.reads(self.two, there, 1), "from-one", "what the first guest wrote")
        self.writes(self.two, there, 2, "from-two")
        expect_equal(self.reads(self.one, here, 2), "from-two", "what the second guest wrote")
        self.writes(self.one, here, 1, "again-one")
        expect_equal(self.reads(self.two, there, 1), "again-one", "what the first guest wrote over it")
        self.detach(self.one, volume)
        expect_equal(self.storage.get_volume(volume).status, "in-use", "status of a volume that one guest has still")
        self.writes(self.two, there, 3, "alone")
        expect_equal(self.reads(self.two, there, 3), "alone", "what the guest wrote that kept it")
        self.detach(self.two, volume)
        self.delete(volume)

    def over_nbd(self):
        """With TLS; the guest makes a file system and mounts it."""
        self.data = self.create("data-nbd", "nbd")
        device = self.attach(self.one, self.data)
        xml = self.virsh(self.one, "dumpxml")
        expect("protocol='nbd'" in xml and "tls='yes'" in xml, f"the volume does not come over NBD with TLS: {xml}")
        self.shell(self.one).run(f"mke2fs /dev/{device} 65536 >/dev/null 2>&1 && mount -t ext4 /dev/{device} /mnt")
        self.shell(self.one).run("echo synced >/mnt/synced && sync")

    def snapshot(self):
        """Of the volume while it is mounted: what was synced is on it, and what came later is not."""
        snapshot = self.storage.create_snapshot(volume_id=self.data, name="moment", force=True).id
        wait_until(lambda: self.storage.get_snapshot(snapshot).status == "available", 60, "the snapshot is taken")
        self.shell(self.one).run("echo later >/mnt/later && sync")
        copy = self.create("of-snapshot", "nbd", snapshot_id=snapshot)
        device = self.attach(self.two, copy)
        listed = self.shell(self.two).run(f"mount -t ext4 /dev/{device} /mnt && cat /mnt/synced && ls /mnt && umount /mnt")
        lines = listed.split()
        expect(lines[0] == "synced" and "later" not in lines, f"on the copy is: {lines}")
        self.detach(self.two, copy)
        self.delete(copy)
        self.storage.delete_snapshot(snapshot)
        wait_until(lambda: not list(self.storage.snapshots()), 60, "the snapshot is gone")

    def elsewhere(self):
        """What the first guest wrote, the other one reads on its host."""
        self.shell(self.one).run("umount /mnt")
        self.detach(self.one, self.data)
        self.status(self.data, "available")
        device = self.attach(self.two, self.data)
        read = self.shell(self.two).run(f"mount -t ext4 /dev/{device} /mnt && cat /mnt/synced /mnt/later")
        expect_equal(read.split(), ["synced", "later"], "what the first guest wrote")

    def daemon_killed(self):
        """Under a guest that writes: it stands still until the daemon is there again, and nothing is lost."""
        shell, service = self.shell(self.two), self.nbd.process
        service.send_signal(signal.SIGSTOP)
        try:
            pids = [int(path.read_text()) for path in (self.cloud.state / "nbd").rglob("*.pid")]
            expect(pids, "there is no daemon")
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            command = f"yes canary | head -c {len(LARGE)} >/mnt/large && sync && echo written"
            writing = subprocess.Popen(shell.words(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, text=True)
            halted = lambda: "I/O error" in self.virsh(self.two, "domstate", "--reason")
            wait_until(halted, 60, "the guest stands still")
        finally:
            service.send_signal(signal.SIGCONT)
        try:
            told = writing.communicate(timeout=90)[0]
        except subprocess.TimeoutExpired as late:
            writing.kill()
            raise Wrong("the guest does not go on") from late
        expect_equal(told.strip(), "written", "what the guest says that wrote meanwhile")
        expect_equal(self.virsh(self.two, "domstate").strip(), "running", "state of the guest")
        digest = shell.run("echo 3 >/proc/sys/vm/drop_caches; md5sum /mnt/large; umount /mnt").split()[0]
        expect_equal(digest, hashlib.md5(LARGE).hexdigest(), "digest of what was written")
        self.detach(self.two, self.data)
        self.delete(self.data)

    def over_iscsi(self):
        """With a password, by QEMU's own initiator; written on one host and read on the other."""
        volume = self.create("data-iscsi", "iscsi")
        device = self.attach(self.one, volume)
        xml = self.virsh(self.one, "dumpxml")
        expect("protocol='iscsi'" in xml and "<auth username=" in xml, f"the volume does not come over iSCSI with a password: {xml}")
        self.writes(self.one, device, 1, "over-iscsi")
        self.detach(self.one, volume)
        self.status(volume, "available")
        device = self.attach(self.two, volume)
        expect_equal(self.reads(self.two, device, 1), "over-iscsi", "what the first guest wrote")
        self.detach(self.two, volume)
        self.iscsi = volume

    def swap_over_iscsi(self):
        """Under a guest that writes on: what was on the old volume is on the new one, also on another host, to which the guest takes it
        while it runs; what is written meanwhile is on the new one alone."""
        old, new = self.iscsi, self.create("other-iscsi", "iscsi")
        device, shell = self.attach(self.one, old), self.shell(self.one)
        write = WRITE.format(device=device, block=9, text="$(cut -d' ' -f1 /proc/uptime)")
        shell.run(f"(while sleep 0.2; do {write} || exit 1; done) >/dev/null 2>&1 & echo $! >/tmp/writer")
        compute = self.scenario.admin.connection.compute
        told = compute.put(f"/servers/{self.one.id}/os-volume_attachments/{old}", json={"volumeAttachment": {"volumeId": new}})
        expect_equal(told.status_code, 202, f"answer to a swap ({told.text})")
        self.status(new, "in-use", 120)
        self.status(old, "available")
        xml = self.virsh(self.one, "dumpxml", "--inactive")
        expect(new in xml and old not in xml, f"the guest's definition does not name the new volume alone: {xml}")
        self.writes(self.one, device, 2, "after-swap")
        host = lambda: compute.get_server(self.one.id).compute_host
        before, written = host(), float(self.reads(self.one, device, 9))
        compute.live_migrate_server(self.one.id, host=None, block_migration="auto")
        wait_until(lambda: host() != before and compute.get_server(self.one.id).status == "ACTIVE", 180, "it is on the other host")
        read = [self.reads(self.one, device, block) for block in (1, 2)]
        expect_equal(read, ["over-iscsi", "after-swap"], "what is on the new volume")
        wait_until(lambda: float(self.reads(self.one, device, 9)) > written, 20, "it writes on")
        shell.run("kill $(cat /tmp/writer)")
        self.detach(self.one, new)
        device = self.attach(self.two, old)
        read = [self.reads(self.two, device, block) for block in (1, 2)]
        expect_equal(read, ["over-iscsi", ""], "what is on the old volume")
        self.detach(self.two, old)
        self.delete(old, new)

    def nothing_left(self):
        for address in self.addresses:
            self.demo.network.delete_ip(address)
        left = [volume.name for volume in self.storage.volumes()]
        expect_equal(left, [], "volumes that are left")


STEPS = ("shared", "over_nbd", "snapshot", "elsewhere", "daemon_killed", "over_iscsi", "swap_over_iscsi", "nothing_left")


def begin(scenario, ledger):
    """Volume hosts of several kinds."""
    ledger.part("disks of several kinds")
    storage = Storage(scenario)
    return storage if ledger.step("volume hosts", storage.volume_hosts) else None


def drive(storage, ledger):
    """All steps, in order."""
    ledger.part("disks of several kinds, each by itself")
    for name in STEPS:
        ledger.step(name.replace("_", " "), getattr(storage, name))
