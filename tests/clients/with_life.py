"""What is done to a server after its boot, on its host: openstacksdk and, once each, the `openstack` command."""

import openstack

from cli import Command, Shell
from ledger import expect, expect_equal, wait_until

JSON = ("-f", "json")


class WithLife:
    """The steps; one server goes through all of them."""

    def __init__(self, setting):
        self.setting = setting
        self.demo = openstack.connect(cloud="nova-demo")
        self.admin = openstack.connect(cloud="nova")
        self.shell = Shell(setting.cloud, "nova-demo")
        self.alone = Command(setting.cloud, "nova-demo")

    def close(self):
        self.shell.close()

    def boot(self):
        self.image = self.demo.create_image("life-image", filename=str(self.setting.image), wait=True, timeout=60,
                                            disk_format=self.setting.disk_format, container_format="bare")
        self.flavor = self.admin.compute.create_flavor(name="life-flavor", ram=self.setting.ram_mb, vcpus=1, disk=1)
        server = self.demo.compute.create_server(name="life", image_id=self.image.id, flavor_id=self.flavor.id, networks="none")
        return self.demo.compute.wait_for_server(server, wait=self.setting.boot_seconds).id

    def settled(self, server, status, seconds=120):
        def looked():
            now = self.demo.compute.get_server(server)
            return now if now.status == status and now.task_state is None else None
        return wait_until(looked, seconds, f"{status} without a task")

    def pause(self, server):
        self.demo.compute.pause_server(server)
        self.settled(server, "PAUSED")
        self.demo.compute.unpause_server(server)
        self.settled(server, "ACTIVE")

    def suspend(self, server):
        self.demo.compute.suspend_server(server)
        self.settled(server, "SUSPENDED")
        self.demo.compute.resume_server(server)
        self.settled(server, "ACTIVE")

    def by_command(self, server):
        """The same by the command, which prints nothing."""
        for word, status in (("pause", "PAUSED"), ("unpause", "ACTIVE"), ("suspend", "SUSPENDED"), ("resume", "ACTIVE")):
            expect_equal(self.shell("server", word, server).strip(), "", f"what server {word} prints")
            self.settled(server, status)

    def conflict(self, server):
        try:
            self.demo.compute.unpause_server(server)
        except openstack.exceptions.ConflictException as error:
            expect("while it is in vm_state active" in str(error), f"the refusal says: {error}")
        else:
            expect(False, "a server that runs was unpaused")

    def rescue(self, server):
        self.demo.compute.rescue_server(server, admin_pass="Pa55-of-rescue", image=self.image.id)
        self.settled(server, "RESCUE")
        self.demo.compute.unrescue_server(server)
        self.settled(server, "ACTIVE")
        self.alone("server", "rescue", server)
        self.settled(server, "RESCUE")
        self.alone("server", "unrescue", server)
        self.settled(server, "ACTIVE")

    def rebuild(self, server):
        rebuilt = self.demo.compute.rebuild_server(server, image=self.image.id, name="life-2", admin_password="Pa55-of-rebuild",
                                                   metadata={"purpose": "rebuilt"})
        expect_equal((rebuilt.name, rebuilt.metadata), ("life-2", {"purpose": "rebuilt"}), "the rebuilt server")
        self.settled(server, "ACTIVE")
        self.alone("server", "rebuild", "--image", "life-image", "--wait", server, timeout=300)
        self.settled(server, "ACTIVE")

    def create_image(self, server):
        made = self.demo.compute.create_server_image(server, "life-snapshot", metadata={"purpose": "test"}, wait=True, timeout=180)
        image = self.demo.image.get_image(made.id)
        expect_equal((image.status, image.properties.get("base_image_ref")), ("active", self.image.id), "status and base")
        expect_equal(image.properties.get("purpose"), "test", "the user's word on the image")
        self.settled(server, "ACTIVE")
        return made.id

    def boot_from_it(self, image):
        server = self.demo.compute.create_server(name="life-copy", image_id=image, flavor_id=self.flavor.id, networks="none")
        server = self.demo.compute.wait_for_server(server, wait=self.setting.boot_seconds)
        self.demo.compute.delete_server(server)
        self.demo.compute.wait_for_delete(server, wait=60)
        self.demo.image.delete_image(image)

    def backup(self, server):
        for number in range(3):
            self.demo.compute.backup_server(server, f"life-backup-{number}", "daily", 2)
            self.settled(server, "ACTIVE")
        names = sorted(image.name for image in self.demo.image.images() if image.name.startswith("life-backup"))
        expect_equal(names, ["life-backup-1", "life-backup-2"], "backups that are kept")
        for image in [image for image in self.demo.image.images() if image.name.startswith("life-backup")]:
            self.demo.image.delete_image(image)

    def password(self, server):
        self.demo.compute.change_server_password(server, "Pa55-that-is-new")
        self.settled(server, "ACTIVE")

    def crash_dump(self, server):
        self.demo.compute.trigger_server_crash_dump(server)
        self.settled(server, "ACTIVE")

    def diagnostics(self, server):
        found = self.admin.compute.get_server_diagnostics(server)
        expect_equal((found.state, found.num_cpus), ("running", 1), "state and processors")
        try:
            self.demo.compute.get_server_diagnostics(server)
        except openstack.exceptions.ForbiddenException:
            return
        expect(False, "a member was told of counters")

    def actions(self, server):
        names = {action.action for action in self.demo.compute.server_actions(server)}
        wanted = {"create", "pause", "unpause", "suspend", "resume"}
        if not self.setting.boots:
            wanted |= {"rescue", "unrescue", "rebuild", "createImage", "createBackup", "changePassword", "trigger_crash_dump"}
        expect(wanted <= names, f"actions: {sorted(names)}")

    def end(self, server):
        self.demo.compute.delete_server(server, force=True)
        wait_until(lambda: self.demo.compute.find_server(server) is None, 60, "the server is gone")
        self.demo.image.delete_image(self.image)
        self.admin.compute.delete_flavor(self.flavor)


def run(setting, ledger):
    ledger.part("the life of a server (openstacksdk, python-openstackclient)")
    step = ledger.step
    steps = step("connect", WithLife, setting)
    if steps is None:
        return
    try:
        server = step("create_server", steps.boot)
        step("pause_server, unpause_server", steps.pause, server)
        step("suspend_server, resume_server", steps.suspend, server)
        step("an action in a state that forbids it", steps.conflict, server)
        step("get_server_diagnostics", steps.diagnostics, server)
        image = step("create_server_image", steps.create_image, server)
        step("create_server from the image that was made", steps.boot_from_it, image)
        # Real guests of all of these: tests/guests.
        if not setting.boots:
            step("server pause, unpause, suspend, resume", steps.by_command, server)
            step("rescue_server, unrescue_server; server rescue, unrescue", steps.rescue, server)
            step("rebuild_server; server rebuild", steps.rebuild, server)
            step("backup_server, which keeps the newest", steps.backup, server)
            step("change_server_password", steps.password, server)
            step("trigger_server_crash_dump", steps.crash_dump, server)
        step("server_actions", steps.actions, server)
        step("delete_server(force=True)", steps.end, server)
    finally:
        steps.close()
