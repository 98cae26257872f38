"""What hangs on servers and projects and needs no guest: labels, tags, locks, states set by hand, quotas, usage, hosts as they
were once, members of images. With the `openstack` command, openstacksdk, and python-novaclient for the oldest version."""

import datetime

import openstack
from novaclient import client, exceptions

from cli import Command, Shell
from ledger import expect, expect_equal, wait_until

JSON = ("-f", "json")
NAME = "projects-server"


class WithProjects:
    """The steps; what must fail is a process of its own."""

    def __init__(self, setting):
        self.setting = setting
        self.admin_alone, self.admin = Command(setting.cloud, "nova"), Shell(setting.cloud, "nova")
        self.demo_alone, self.demo = Command(setting.cloud, "nova-demo"), Shell(setting.cloud, "nova-demo")
        self.demo_sdk, self.admin_sdk = openstack.connect(cloud="nova-demo"), openstack.connect(cloud="nova")
        self.old_demo = client.Client("2.1", session=self.demo_sdk.session)
        self.old_admin = client.Client("2.1", session=self.admin_sdk.session)

    def close(self):
        self.admin.close()
        self.demo.close()

    def prepare(self):
        image = self.demo_sdk.create_image("projects-image", filename=str(self.setting.image), container_format="bare",
                                           disk_format=self.setting.disk_format, wait=True, timeout=60)
        flavor = self.admin_sdk.compute.create_flavor(name="projects-flavor", ram=self.setting.ram_mb, vcpus=1, disk=1)
        server = self.demo_sdk.compute.create_server(name=NAME, image_id=image.id, flavor_id=flavor.id, networks="none")
        server = self.demo_sdk.compute.wait_for_server(server, wait=self.setting.boot_seconds)
        return image, flavor, server

    def _shown(self):
        return self.demo("server", "show", NAME, *JSON)

    # ---- servers

    def labels(self, server):
        self.demo("server", "set", "--property", "colour=red", "--property", "size=small", NAME)
        expect_equal(self._shown()["properties"], {"colour": "red", "size": "small"}, "properties")
        self.demo("server", "unset", "--property", "size", NAME)
        expect_equal(self._shown()["properties"], {"colour": "red"}, "properties after unset")
        compute = self.demo_sdk.compute
        compute.set_server_metadata(server, shape="round")
        expect_equal(compute.get_server_metadata(server).metadata, {"colour": "red", "shape": "round"}, "metadata by the SDK")
        compute.delete_server_metadata(server, ["colour", "shape"])
        expect_equal(compute.get_server_metadata(server).metadata, {}, "metadata that is left")

    def tags(self, server):
        self.demo_alone("--os-compute-api-version", "2.26", "server", "set", "--tag", "first", "--tag", "second", NAME)
        expect_equal(sorted(self._shown()["tags"]), ["first", "second"], "tags")
        found = self.demo_alone("--os-compute-api-version", "2.26", "server", "list", "--tags", "first", *JSON)
        expect_equal([row["Name"] for row in found], [NAME], "servers with the tag")
        self.demo_alone("--os-compute-api-version", "2.26", "server", "unset", "--tag", "first", NAME)
        expect_equal(self._shown()["tags"], ["second"], "tags after unset")
        self.demo_sdk.compute.get_server(server).remove_all_tags(self.demo_sdk.compute)
        expect_equal(self._shown()["tags"], [], "tags that are left")

    def locks(self):
        self.demo_alone("--os-compute-api-version", "2.73", "server", "lock", "--reason", "for a while", NAME)
        shown = self._shown()
        expect_equal((shown["locked"], shown["locked_reason"]), (True, "for a while"), "locked, locked_reason")
        # An owner's own lock keeps the owner off, too.
        text = self.demo_alone("server", "stop", NAME, fails=True)
        expect("409" in text and "is locked" in text, f"stopping a locked server is answered with: {text}")
        self.demo("server", "unlock", NAME)
        expect_equal(self._shown()["locked"], False, "locked")

    def states(self):
        self.admin("server", "set", "--auto-approve", "--state", "error", self._shown()["id"])
        expect_equal(self._shown()["status"], "ERROR", "status")
        text = self.demo_alone("server", "set", "--auto-approve", "--state", "active", NAME, fails=True)
        expect("403" in text, f"a member who sets a state is answered with: {text}")
        self.admin("server", "set", "--auto-approve", "--state", "active", self._shown()["id"])
        expect_equal(self._shown()["status"], "ACTIVE", "status")

    def names(self):
        self.demo_alone("--os-compute-api-version", "2.90", "server", "set", "--description", "a test", "--hostname", "guest", NAME)
        shown = self._shown()
        expect_equal((shown["description"], shown["OS-EXT-SRV-ATTR:hostname"]), ("a test", "guest"), "description, hostname")

    def actions(self):
        events = self.demo("server", "event", "list", NAME, *JSON)
        actions = {row["Action"] for row in events}
        expect({"create", "lock", "unlock"} <= actions, f"actions: {actions}")

    # ---- projects

    def quotas(self):
        before = self.admin_sdk.compute.get_quota_set(self.demo_sdk.current_project_id)
        self.admin("quota", "set", "--instances", "1", "--force", "demo")
        expect_equal(self.demo_sdk.compute.get_quota_set(self.demo_sdk.current_project_id).instances, 1, "instances")
        text = self.demo_alone("server", "create", "--image", "projects-image", "--flavor", "projects-flavor", "--no-network",
                               "projects-more", fails=True)
        expect("403" in text and "Quota exceeded for instances" in text, f"one more than the quota is answered with: {text}")
        limits = self.demo_sdk.compute.get_limits().absolute
        expect_equal((limits.instances, limits.instances_used), (1, 1), "limit of instances, and what is used of it")
        usage = self.admin_sdk.compute.get_quota_set(self.demo_sdk.current_project_id, usage=True).usage
        expect_equal(usage["instances"], 1, "instances in use")
        text = self.admin_alone("quota", "set", "--cores", "0", "demo", fails=True)
        expect("400" in text and "greater than or equal to already used" in text, f"less than in use is answered with: {text}")
        self.admin("quota", "delete", "--compute", "demo")
        after = self.admin_sdk.compute.get_quota_set(self.demo_sdk.current_project_id)
        expect_equal(after.instances, before.instances, "instances after quota delete")

    def old_quotas(self):
        """Per user and per class, as the old library does it at 2.1."""
        project, user = self.demo_sdk.current_project_id, self.demo_sdk.current_user_id
        self.old_admin.quotas.update(project, user_id=user, cores=3)
        expect_equal(self.old_admin.quotas.get(project, user_id=user).cores, 3, "the user's cores")
        expect_equal(self.old_admin.quotas.get(project).cores, self.old_admin.quotas.defaults(project).cores, "the project's")
        expect("floating_ips" in self.old_admin.quotas.get(project).to_dict(), "no floating_ips at 2.1")
        self.old_admin.quotas.delete(project, user_id=user)
        expect(self.old_admin.quotas.get(project, user_id=user).cores != 3, "the user's limit is still there")
        before = self.old_admin.quota_classes.get("default").ram
        self.old_admin.quota_classes.update("default", ram=before + 1)
        expect_equal(self.old_admin.quotas.defaults(project).ram, before + 1, "ram by default")
        self.old_admin.quota_classes.update("default", ram=before)
        try:
            self.old_demo.quotas.update(project, cores=99)
        except exceptions.Forbidden:
            return
        expect(False, "a member may raise the quota")

    def usage(self):
        tomorrow = (datetime.datetime.now() + datetime.timedelta(days=2)).strftime("%Y-%m-%d")
        rows = self.admin("usage", "list", "--end", tomorrow, *JSON)
        expect(self.demo_sdk.current_project_id in [row["Project"] for row in rows], f"usage of projects: {rows}")
        shown = self.demo("usage", "show", "--end", tomorrow, *JSON)
        expect(float(shown["CPU Hours"]) > 0, f"usage of the own project: {shown}")
        start, end = datetime.datetime(2020, 1, 1), datetime.datetime(2100, 1, 1)
        usage = self.old_demo.usage.get(self.demo_sdk.current_project_id, start, end)
        expect(NAME in [server["name"] for server in usage.server_usages], f"usage by server: {usage.server_usages}")
        log = self.old_admin.instance_usage_audit_log.get() if hasattr(self.old_admin, "instance_usage_audit_log") else None
        if log is not None:
            expect_equal(log.num_hosts, self.setting.hosts, "hosts in the audit log")

    def hosts(self):
        """`/os-hosts`, which went with 2.43."""
        session, endpoint = self.admin_sdk.session, {"service_type": "compute", "interface": "public"}
        rows = session.get("/os-hosts", endpoint_filter=endpoint).json()["hosts"]
        computes = [row["host_name"] for row in rows if row["service"] == "compute"]
        expect_equal(len(computes), self.setting.hosts, f"compute hosts in {rows}")
        resources = session.get(f"/os-hosts/{computes[0]}", endpoint_filter=endpoint).json()["host"]
        expect_equal(resources[0]["resource"]["project"], "(total)", "first row of a host")

    def old_images(self, image):
        """Compute's own image calls, which went with 2.36."""
        session, endpoint = self.demo_sdk.session, {"service_type": "compute", "interface": "public"}
        shown = session.get(f"/images/{image.id}", endpoint_filter=endpoint).json()["image"]
        expect_equal((shown["name"], shown["status"]), ("projects-image", "ACTIVE"), "the image by compute")
        made = session.post(f"/images/{image.id}/metadata", endpoint_filter=endpoint, json={"metadata": {"colour": "red"}})
        expect_equal(made.json()["metadata"]["colour"], "red", "metadata by compute")
        expect_equal(self.demo_sdk.image.get_image(image.id).properties.get("colour"), "red", "property by the image service")

    def members(self, image):
        """Shown to another project, which accepts."""
        project = self.admin_sdk.current_project_id
        self.demo("image", "set", "--shared", image.id)
        self.demo("image", "add", "project", image.id, project, *JSON)
        rows = self.demo("image", "member", "list", image.id, *JSON)
        expect_equal([(row["Member ID"], row["Status"]) for row in rows], [(project, "pending")], "members")
        self.admin("image", "set", "--accept", "--project", project, image.id)
        rows = self.demo("image", "member", "list", image.id, *JSON)
        expect_equal([row["Status"] for row in rows], ["accepted"], "status of the member")
        self.demo("image", "remove", "project", image.id, project)
        expect_equal(self.demo("image", "member", "list", image.id, *JSON), [], "members left")

    def clean(self, image, flavor, server):
        self.demo_sdk.compute.delete_server(server)
        self.demo_sdk.compute.wait_for_delete(server, wait=60)
        self.demo_sdk.image.delete_image(image)
        self.admin_sdk.compute.delete_flavor(flavor)
        wait_until(lambda: self.demo_sdk.image.find_image("projects-image") is None, 10, "the image is gone")


def run(setting, ledger):
    """All of it, on fake guests alone: none of it reaches a guest."""
    if setting.boots:
        return
    ledger.part("servers' labels, quotas, usage, image members (all three clients)")
    steps, step = WithProjects(setting), ledger.step
    try:
        made = step("image, flavor and server", steps.prepare)
        if not made:
            return
        image, flavor, server = made
        step("server set and unset --property; server metadata", steps.labels, server)
        step("server set and unset --tag, server list --tags", steps.tags, server)
        step("server lock --reason, unlock", steps.locks)
        step("server set --state", steps.states)
        step("server set --description --hostname", steps.names)
        step("server event list", steps.actions)
        step("quota set and delete; a create that is over it; limits", steps.quotas)
        step("quotas of users and classes at 2.1", steps.old_quotas)
        step("usage list and show", steps.usage)
        step("os-hosts at 2.1", steps.hosts)
        step("images through compute at 2.1", steps.old_images, image)
        step("image add project, set --accept, remove project", steps.members, image)
        step("delete server, image and flavor", steps.clean, image, flavor, server)
    finally:
        steps.close()
