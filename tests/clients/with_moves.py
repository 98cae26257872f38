"""Servers that go from host to host: openstacksdk and the `openstack` command, over a nova-all of its own with several hosts of
the fake driver."""

import contextlib

import openstack

from cloud import AllInOne
from cli import Command, Shell
from ledger import expect, expect_equal, wait_until

JSON = ("-f", "json")
# What is said of a live migration that is over already.
PAST = {
    # The command takes the server's id for the migration's, and the other way round.
    ("show",): "No ServerMigration found for",
    ("abort",): "is in an invalid state for 'abort live migration'",
    ("force", "complete"): "is in an invalid state for 'force_complete'",
}


class SeveralHosts(AllInOne):
    """nova-all with three hosts."""

    hosts = 3

    def __init__(self, programs):
        super().__init__(programs, "fake")
        self.conf = self.write("nova.conf", DEFAULT={"state_path": self.state, "compute_driver": "fake", "host": "fake"},
                               fake={"hosts": self.hosts})

    def __str__(self):
        return f"nova-all, fake driver, {self.hosts} hosts"


class WithMoves:
    """The steps; one server goes through all of them."""

    def __init__(self, cloud, image):
        self.cloud = cloud
        self.file = image
        self.demo, self.admin = self.connect("nova-demo"), self.connect("nova")
        # An ordinary user's commands, and an administrator's.
        self.shell, self.root = Shell(cloud, "nova-demo"), Shell(cloud, "nova")
        self.alone = Command(cloud, "nova-demo")

    def connect(self, name):
        # Not the cloud that the environment names.
        config = openstack.config.OpenStackConfig(config_files=[str(self.cloud.clouds_yaml)], load_envvars=False)
        return openstack.connection.Connection(config=config.get_one(cloud=name))

    def close(self):
        self.shell.close()
        self.root.close()

    def boot(self):
        self.image = self.demo.create_image("moves-image", filename=str(self.file), wait=True, timeout=60,
                                            disk_format="raw", container_format="bare")
        make = self.admin.compute.create_flavor
        self.small = make(name="moves-small", ram=64, vcpus=1, disk=1)
        self.large = make(name="moves-large", ram=128, vcpus=2, disk=1)
        self.server = self.another("moves").id

    def another(self, name):
        server = self.demo.compute.create_server(name=name, image_id=self.image.id, flavor_id=self.small.id, networks="none")
        return self.demo.compute.wait_for_server(server, wait=30)

    def seen(self, server=None):
        return self.admin.compute.get_server(server or self.server)

    def settled(self, status, server=None):
        def looked():
            now = self.seen(server)
            return now if now.status == status and now.task_state is None else None
        return wait_until(looked, 60, f"{status} without a task")

    def host(self, server=None):
        return self.seen(server).compute_host

    def moved(self, before, status="ACTIVE"):
        now = self.settled(status)
        expect(now.compute_host != before, f"the server is still on {before}")
        return now

    def resize(self):
        before = self.host()
        self.alone("server", "resize", "--flavor", "moves-large", "--wait", self.server)
        now = self.moved(before, "VERIFY_RESIZE")
        expect_equal((now.flavor.vcpus, now.flavor.ram), (2, 128), "processors and memory after the resize")
        expect_equal(self.shell("server", "resize", "confirm", self.server).strip(), "", "what server resize confirm prints")
        now = self.settled("ACTIVE")
        expect(now.compute_host != before, "a confirmed server is where it went")

    def revert(self):
        before = self.host()
        self.demo.compute.resize_server(self.server, self.small)
        self.settled("VERIFY_RESIZE")
        expect_equal(self.shell("server", "resize", "revert", self.server).strip(), "", "what server resize revert prints")
        now = self.settled("ACTIVE")
        expect_equal((now.compute_host, now.flavor.vcpus), (before, 2), "host and processors after the way back")

    def same_flavor(self):
        said = self.alone("server", "resize", "--flavor", "moves-large", self.server, fails=True)
        expect("must change flavor" in said, said)

    def migrate(self):
        before = self.host()
        self.root("server", "migrate", "--wait", self.server)
        self.moved(before, "VERIFY_RESIZE")
        self.root("server", "migration", "confirm", self.server)
        self.moved(before)
        said = self.alone("server", "migrate", self.server, fails=True)
        expect("403" in said, f"a member migrated a server: {said}")

    def migrate_live(self):
        before = self.host()
        self.root("server", "migrate", "--live-migration", "--wait", self.server)
        now = self.moved(before)
        targets = {service.host for service in self.admin.compute.services() if service.binary == "nova-compute"}
        there = sorted(targets - {now.compute_host})[0]
        self.root("server", "migrate", "--live-migration", "--host", there, "--wait", self.server)
        expect_equal(self.settled("ACTIVE").compute_host, there, "the host that was named")

    def migrations(self):
        listed = self.root("server", "migration", "list", *JSON, "--server", self.server)
        kinds = {one["Type"] for one in listed}
        expect_equal(kinds, {"resize", "migration", "live-migration"}, "kinds of migrations")
        status = {(one["Type"], one["Status"]) for one in listed}
        expect({("resize", "confirmed"), ("resize", "reverted"), ("live-migration", "completed")} <= status, f"{status}")
        live = [one for one in listed if one["Type"] == "live-migration"]
        # Both work on migrations that go on: those of the fake driver are over at once.
        for words in (("show",), ("abort",), ("force", "complete")):
            try:
                said = self.root("server", "migration", *words, self.server, str(live[0]["Id"]))
            except Exception as error:  # the shell ended
                said = str(error)
            expect(PAST[words] in str(said), f"{words}: {said}")

    def shelve(self):
        self.alone("server", "shelve", "--wait", self.server)
        now = self.settled("SHELVED_OFFLOADED")
        expect_equal(now.compute_host, None, "the host of a server that is on none")
        self.alone("server", "unshelve", "--wait", self.server)
        self.settled("ACTIVE")
        expect_equal([image.name for image in self.demo.image.images() if image.name.endswith("-shelved")], [], "images left")

    def evacuate(self):
        before = self.host()
        refused = self.root("server", "evacuate", self.server)
        expect("still in use" in refused, f"a server of a host that lives was evacuated: {refused}")
        self.root("compute", "service", "set", "--down", before, "nova-compute")
        try:
            # --wait would wait for ACTIVE, which a server that is evacuated from 2.95 on is not by itself.
            self.root("server", "evacuate", self.server)

            def elsewhere():
                seen = self.seen()
                done = seen.task_state is None and seen.status in ("ACTIVE", "SHUTOFF") and seen.compute_host != before
                return seen if done else None
            now = wait_until(elsewhere, 60, "the server is on another host")
        finally:
            self.root("compute", "service", "set", "--up", before, "nova-compute")
        if now.status == "SHUTOFF":
            self.demo.compute.start_server(self.server)
        self.settled("ACTIVE")

    def drain(self):
        """A host is emptied while its servers run; what cannot leave is named."""
        others = [self.another(f"moves-{number}").id for number in range(3)]
        suspended = others[0]
        self.demo.compute.suspend_server(suspended)
        self.settled("SUSPENDED", suspended)
        host = self.host(suspended)
        done = self.cloud.manage([self.cloud.conf], "host", "drain", host, "--wait", "--max-parallel", "3", "--reason", "new fan")
        expect_equal(done.returncode, 1, f"the exit code while a server stays: {done.stdout}{done.stderr}")
        expect(f"{suspended} stays: it is suspended" in done.stdout, done.stdout)
        self.demo.compute.resume_server(suspended)
        self.settled("ACTIVE", suspended)
        done = self.cloud.manage([self.cloud.conf], "host", "drain", host, "--wait")
        expect_equal(done.returncode, 0, f"the exit code of a host that is empty: {done.stdout}{done.stderr}")
        expect(f"{host} is empty" in done.stdout, done.stdout)
        there = [server for server in [self.server, *others] if self.host(server) == host]
        expect_equal(there, [], "servers on the host that was emptied")
        service = [one for one in self.admin.compute.services() if one.binary == "nova-compute" and one.host == host][0]
        expect_equal((service.status, service.disabled_reason), ("disabled", "maintenance"), "the service's status and reason")
        shown = self.cloud.manage([self.cloud.conf], "server", "show", suspended)
        expect(f"server     {suspended}" in shown.stdout and "state      active, task none" in shown.stdout, shown.stdout)
        self.root("compute", "service", "set", "--enable", host, "nova-compute")
        done = self.cloud.manage([self.cloud.conf], "host", "show", host)
        expect_equal(done.returncode, 0, f"{done.stdout}{done.stderr}")
        for server in others:
            self.demo.compute.delete_server(server)
        for server in others:
            wait_until(lambda: self.demo.compute.find_server(server) is None, 60, "the server is gone")

    def end(self):
        self.demo.compute.delete_server(self.server)
        wait_until(lambda: self.demo.compute.find_server(self.server) is None, 60, "the server is gone")
        self.demo.image.delete_image(self.image)
        for flavor in (self.small, self.large):
            self.admin.compute.delete_flavor(flavor)

    def check(self):
        """The host that was declared dead removes what it has when it compares, which it does every minute."""
        def clean():
            self.last = self.cloud.manage([self.cloud.conf], "check")
            return self.last.returncode == 0
        try:
            wait_until(clean, 90, "nova-manage check finds nothing", pause=5)
        except Exception:
            expect(False, f"nova-manage check: {self.last.stdout}{self.last.stderr}")


def steps_of(steps, step):
    step("create_server", steps.boot)
    step("server resize, resize confirm", steps.resize)
    step("resize_server; server resize revert", steps.revert)
    step("server resize to the flavor that it has", steps.same_flavor)
    step("server migrate, migration confirm", steps.migrate)
    step("server migrate --live-migration", steps.migrate_live)
    step("server migration list, show, abort, force complete", steps.migrations)
    step("server shelve, unshelve", steps.shelve)
    step("server evacuate", steps.evacuate)
    step("nova-manage host drain, server show", steps.drain)
    step("delete_server", steps.end)
    step("nova-manage check finds nothing wrong", steps.check)


def run(setting, ledger):
    if setting.hosts > 1:
        return  # in pieces guests of the fake driver do not go from process to process
    cloud = SeveralHosts(setting.cloud.programs)
    ledger.part(f"moves between hosts ({cloud})")
    try:
        ledger.step("starts and is healthy", cloud.start)
        steps = ledger.step("connect", WithMoves, cloud, setting.image)
        if steps is not None:
            with contextlib.closing(steps):
                steps_of(steps, ledger.step)
    finally:
        cloud.stop()
        cloud.remove()
