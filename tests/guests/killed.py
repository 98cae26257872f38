"""Services that die in the middle: for each of six operations, once the conductor and once a compute host gets SIGKILL while a
step is under way, and is started again. Then the server rests where it may, is on one host alone, and nothing else is left.

The fake driver's tests fail and kill every step of every operation; this is a dozen of them with real domains and disks.
"""

import time

from guests import Guest
from ledger import Wrong, expect, expect_equal, wait_until

# Seconds after which a conductor that was started again takes up what the dead one had in hand.
LEASE = 4
# A step that was over before it was seen is tried again, so often at most.
TRIES = 3
SECONDS = 120
# How long a host takes at most to look for what does not belong to it, and remove it. One that was killed is late for what has
# left it just now.
RECONCILED = 75


class Killed:
    """One server goes through all operations, and is made by the first of them."""

    def __init__(self, scenario):
        self.scenario, self.cloud = scenario, scenario.cloud
        self.demo, self.admin = scenario.demo.connection, scenario.admin.connection

    # ---- what the cases need

    def seen(self):
        """The server as an administrator sees it, and what it waits for: `resize: finish_move on compute-2 since …`."""
        answer = self.admin.compute.get(f"/servers/{self.guest.id}", microversion="2.96")
        return answer.json()["server"], answer.headers.get("x-nova-waiting-for", "")

    def number(self):
        host = self.seen()[0]["OS-EXT-SRV-ATTR:host"]
        return int(host.rsplit("-", 1)[1]) if host else None

    def rests(self, *allowed):
        """Waits until nothing is being done to it; its status must be one of these."""
        def look():
            server, waits = self.seen()
            return not waits and server["OS-EXT-STS:task_state"] is None and server["status"] != "BUILD" and server
        try:
            server = wait_until(look, SECONDS, "it rests", pause=0.1)
        except Wrong as late:
            raise Wrong(f"{late}: {self.seen()[1]}") from late
        expect(server["status"] in allowed, f"it rests in {server['status']}: {server.get('fault')}")
        return server["status"]

    def strikes(self, step, victim):
        """Kills the service once that step is under way, and starts it again; whether it came in time."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            server, waits = self.seen()
            # Only once the step's order is out: "… on compute-1", not "… by conductor".
            if f" {step} on " in waits:
                host = waits.split(" on ")[1].split()[0]
                name = victim if victim == "nova-conductor" else f"nova-{host}"
                self.cloud.kill(name)
                self.cloud.revive(name)
                return name
            if not waits and server["OS-EXT-STS:task_state"] is None and server["status"] != "BUILD":
                return None
        raise Wrong(f"{step} was not seen: {waits}")

    def images(self):
        return [(image.name, image.status) for image in self.demo.image.images() if image.status != "active"]

    def sound(self, files=True):
        """One copy of it at most, there where the cloud says; no files, no images, no records that nobody owns."""
        here = [n for n in (self.number(),) if n]
        expect_equal(self.cloud.domains(self.guest.id), here, "hosts that have a domain of it")
        # What a resize has set aside waits for its owner's word; where it was sent from while it ran, its files stay until that
        # host looks: the next case waits for that.
        if files and self.seen()[0]["status"] != "VERIFY_RESIZE":
            wait_until(lambda: self.cloud.folders(self.guest.id) == here, RECONCILED, f"its files are on {here} alone")
        wait_until(lambda: not self.images(), 30, "no image is left in the making")
        self.scenario.check()

    def case(self, begin, step, victim, allowed, settle=lambda status: None, files=True):
        """One row of the table; what to do afterwards is told the status, and leaves a server that runs."""
        for _ in range(TRIES):
            begin()
            hit = self.strikes(step, victim)
            status = self.rests(*allowed)
            self.sound(files)
            settle(status)
            if hit:
                print(f"          ({hit} died in {step}; then {status})")
                return
        raise Wrong(f"{step} was over before it was seen, {TRIES} times")

    # ---- the operations

    def prepare(self):
        """A short lease, which takes a restart; two flavors; a disk that takes a moment to copy. Its guest stands in the firmware,
        and does not hear that it is to shut down."""
        self.before = self.cloud.edit(DEFAULT={"shutdown_timeout": 1}, conductor={"task_lease": LEASE})
        self.cloud.kill("nova-conductor")
        self.cloud.revive("nova-conductor")
        make = self.admin.compute.create_flavor
        self.flavors = [make(name=f"killed-{number}", ram=64 * number, vcpus=1, disk=1).id for number in (1, 2)]
        self.image = self.scenario.blank()
        self.guest = None
        return True

    def boot(self, victim):
        def begin():
            self.delete()
            server = self.demo.compute.create_server(name="killed", image_id=self.image, flavor_id=self.flavors[0],
                                                     networks="none")
            self.guest = Guest(self.cloud, self.demo, server)
        self.case(begin, "spawn", victim, ("ACTIVE",))

    def resize(self, victim):
        def begin():
            now = self.demo.compute.get_server(self.guest.id).flavor.ram
            self.demo.compute.resize_server(self.guest.id, self.flavors[1 if now == 64 else 0])

        def settle(status):
            if status == "VERIFY_RESIZE":
                self.demo.compute.confirm_server_resize(self.guest.id)
                self.rests("ACTIVE")
            self.sound()
        step = "stash_source" if victim == "nova-conductor" else "finish_move"
        self.case(begin, step, victim, ("VERIFY_RESIZE", "ACTIVE"), settle)

    def live_migration(self, victim):
        begin = lambda: self.admin.compute.live_migrate_server(self.guest.id, host=None, block_migration="auto")
        self.case(begin, "live_migrate", victim, ("ACTIVE",), files=False)

    def shelve(self, victim):
        def settle(status):
            if status != "ACTIVE":
                self.demo.compute.unshelve_server(self.guest.id)
                self.rests("ACTIVE")
                self.sound()
        begin = lambda: self.demo.compute.shelve_server(self.guest.id)
        self.case(begin, "snapshot", victim, ("SHELVED_OFFLOADED", "ACTIVE"), settle)

    def snapshot(self, victim):
        def settle(_):
            for image in [image for image in self.demo.image.images() if image.name == "killed"]:
                self.demo.image.delete_image(image)
        self.case(lambda: self.demo.compute.create_server_image(self.guest.id, "killed"), "snapshot", victim, ("ACTIVE",), settle)

    def rebuild(self, victim):
        self.case(lambda: self.demo.compute.rebuild_server(self.guest.id, image=self.image), "rebuild", victim, ("ACTIVE",))

    def delete(self):
        if self.guest:
            self.demo.compute.delete_server(self.guest.id)
            wait_until(lambda: self.demo.compute.find_server(self.guest.id) is None, 90, "it is gone")
            expect_equal(self.cloud.domains(self.guest.id), [], "hosts that have a domain of it")
            wait_until(lambda: not self.cloud.folders(self.guest.id), RECONCILED, "its files are gone")

    def end(self):
        self.delete()
        self.cloud.edit(**self.before)
        self.cloud.reload()


VICTIMS = ("nova-conductor", "nova-compute")
OPERATIONS = ("boot", "resize", "live_migration", "shelve", "snapshot", "rebuild")


def drive(scenario, ledger):
    """All cases; a server that one of them has lost is made anew by the next boot."""
    ledger.part("services that are killed")
    killed = Killed(scenario)
    if ledger.step("prepare", killed.prepare) is None:
        return
    for victim in VICTIMS:
        for name in OPERATIONS:
            ledger.step(f"{name.replace('_', ' ')}, and {victim} dies", getattr(killed, name), victim)
    ledger.step("nothing left", killed.end)
