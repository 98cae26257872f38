"""The life of a server between hosts: it goes from one to the other, asked or not, and its guest says what it noticed."""

import signal

import hardware
from guests import Guest
from ledger import expect, expect_equal, wait_until
from life import Life

# MiB a second: the disk of one GiB, most of it empty, takes twenty seconds. Hosts tell every five seconds how far they are.
SLOWLY = {"live_migration_bandwidth": 50}


class Moves(Life):
    """One server; `scenario` has two hosts."""

    # ---- what the steps need

    def service(self, host):
        """The process, and what the cloud knows of it."""
        record = next(s for s in self.admin.services(binary="nova-compute") if s.host == host)
        return self.cloud.named(f"nova-{host}"), record

    def under_way(self):
        """A live migration that has begun to send its disk."""
        self.admin.live_migrate_server(self.guest.id, host=None, block_migration="auto")

        def look():
            found = next(iter(self.admin.server_migrations(self.guest.id)), None)
            return found if found and found.status == "running" and found.disk_processed_bytes else None
        return wait_until(look, 120, "its disk is on its way", pause=0.02)

    def moved_by(self, migration):
        """What became of it."""
        return next(m.status for m in self.admin.migrations(instance_uuid=self.guest.id) if m.id == migration.id)

    # ---- the steps

    def live_migrate(self):
        """The guest is on the other host, and did not notice: same uptime, same connection."""
        before, host = self.connection.goes_on(), self.host()
        self.admin.live_migrate_server(self.guest.id, host=None, block_migration="auto")
        wait_until(lambda: self.host() != host, 180, "it is on the other host")
        self.becomes("ACTIVE")
        expect(self.connection.goes_on(60) > before, "the uptime goes on")
        self.action("live-migration")

    def slowly(self):
        """The first time somebody thinks better of it; the second time it is halted, so that it arrives."""
        before, host = self.connection.goes_on(), self.host()
        number = int(host.rsplit("-", 1)[1])
        with self.cloud.settings(libvirt=SLOWLY):
            migration = self.under_way()
            self.admin.abort_server_migration(migration, self.guest.id)
            self.becomes("ACTIVE", 60)
            expect_equal((self.host(), self.moved_by(migration)), (host, "cancelled"), "host and migration")
            expect_equal(self.cloud.domains(self.guest.id), [number], "hosts that have a domain of it")
            before = max(before, self.connection.goes_on())
            migration = self.under_way()
            self.admin.force_complete_server_migration(migration, self.guest.id)
            expect_equal(self.cloud.virsh(number, "domstate", self.guest.id), "paused", "state of a guest that is to arrive")
            self.becomes("ACTIVE", 180)
        expect(self.host() != host, "it is on the same host")
        expect_equal(self.moved_by(migration), "completed", "migration")
        expect(self.connection.goes_on(60) > before, "the uptime goes on")

    def stop_and_start(self):
        """Moved to the other host while it is off."""
        self.connection.close()
        self.compute.stop_server(self.guest.id)
        self.becomes("SHUTOFF")
        host = self.host()
        self.admin.migrate_server(self.guest.id)
        self.becomes("VERIFY_RESIZE", 240)
        self.compute.confirm_server_resize(self.guest.id)
        self.becomes("SHUTOFF")
        expect(self.host() != host, "it is on the same host")
        expect_equal(len(self.cloud.folders(self.guest.id)), 1, "number of hosts that have its files")
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

    def shelve(self):
        """As an image, and off every host when somebody asks for that; back with its disk and addresses."""
        before = self.boots()
        addresses, host = self.guest.addresses(), self.host()
        with self.cloud.settings(DEFAULT={"shelved_offload_time": -1}):
            self.compute.shelve_server(self.guest.id)
            self.becomes("SHELVED", 240)
            expect_equal(self.host(), host, "host of a server that is shelved, and stays")
            self.admin.shelve_offload_server(self.guest.id)
            self.becomes("SHELVED_OFFLOADED")
        expect_equal(self.host(), None, "host of a shelved server")
        self.compute.unshelve_server(self.guest.id)
        self.becomes("ACTIVE", 240)
        self.booted(before + 1)
        expect_equal(self.guest.addresses(), addresses, "addresses")
        self.answers()
        expect_equal(self.shell.run("cat /data/marker").strip(), "kept", "the file")

    def resize_by_itself(self):
        """Another server, whose resize nobody is going to confirm."""
        flavors = [self.admin.create_flavor(name=f"tiny-{number}", ram=64 * number, vcpus=1, disk=1) for number in (1, 2)]
        self.forgotten = Guest(self.cloud, self.scenario.demo.connection, self.compute.create_server(
            name="forgotten", image_id=self.scenario.blank(), flavor_id=flavors[0].id, networks="none"))
        self.scenario.demo.wait(self.forgotten)
        # It does not hear that it is to shut down.
        with self.cloud.settings(DEFAULT={"shutdown_timeout": 1}):
            self.compute.resize_server(self.forgotten.id, flavors[1].id)
            wait_until(lambda: self.forgotten.server().status == "VERIFY_RESIZE", 120, "it is resized")
        self.meanwhile = self.cloud.settings(DEFAULT={"resize_confirm_window": 1})
        self.meanwhile.__enter__()

    def confirmed_by_itself(self):
        """The conductor looks once a minute."""
        try:
            wait_until(lambda: self.forgotten.server().status == "ACTIVE", 75, "it is confirmed", pause=1)
        finally:
            self.meanwhile.__exit__(None, None, None)
        expect_equal(self.forgotten.server().flavor.ram, 128, "memory of its flavor")
        wait_until(lambda: len(self.cloud.folders(self.forgotten.id)) == 1, 30, "its files are on one host")
        self.compute.delete_server(self.forgotten.id)

    def evacuate(self, forced=False):
        """Its host stands still until it counts as down: the guest is rebuilt elsewhere; the host that wakes up removes its copy."""
        host = self.host()
        process, record = self.service(host)
        process.process.send_signal(signal.SIGSTOP)
        try:
            if forced:
                self.admin.update_service_forced_down(record, forced=True)
            wait_until(lambda: self.service(host)[1].state == "down", 60, "its host is down")
            self.admin.evacuate_server(self.guest.id)
            wait_until(lambda: self.host() != host, 180, "it is on the other host")
            self.rests()
        finally:
            process.process.send_signal(signal.SIGCONT)
            if forced:
                self.admin.update_service_forced_down(record, forced=False)
        wait_until(lambda: len(self.cloud.domains(self.guest.id)) == 1, 90, "the old host has removed its copy", pause=1)
        wait_until(lambda: self.service(host)[1].state == "up", 30, "its old host is up again")
        self.compute.start_server(self.guest.id)
        self.becomes("ACTIVE")


STEPS = ("pause", "suspend", "lock", "diagnostics", "console_length", "words", "reset_state", "crash_dump", "no_password", "image",
         "backup", "live_migrate", "slowly", "stop_and_start", "resize", "revert", "resize_by_itself", "rescue", "shelve",
         "rebuild", "soft_delete", "stops_itself", "evacuate", "confirmed_by_itself", "delete")


def drive(scenario, ledger):
    """All steps, in order, as long as there is a guest."""
    ledger.part("the life of a server")
    life = Moves(scenario)
    if ledger.step("boot", life.boot) is None:
        return
    other = hardware.begin(scenario, ledger)
    for name in STEPS:
        ledger.step(name.replace("_", " "), getattr(life, name))
    if other:
        hardware.end(other, ledger)
