"""openstacksdk: what programs and infrastructure tools call."""

import openstack

from ledger import expect, expect_equal, wait_until


class WithSdk:
    """The steps, as member `demo` and, where it takes one, as administrator."""

    def __init__(self, setting):
        self.setting = setting
        self.demo = openstack.connect(cloud="nova-demo")
        self.admin = openstack.connect(cloud="nova")

    def connect(self):
        token = self.demo.authorize()
        expect(len(token) > 20, "no token")
        expect_equal(self.demo.compute.get_endpoint_data().max_microversion, (2, 104), "highest microversion")

    def image(self):
        image = self.demo.create_image("sdk-image", filename=str(self.setting.image), disk_format=self.setting.disk_format,
                                       container_format="bare", wait=True, timeout=60)
        expect_equal(image.status, "active", "status")
        expect("sdk-image" in [i.name for i in self.demo.image.images()], "the image is not listed")
        expect("sdk-image" not in [i.name for i in self.admin.image.images(owner=self.admin.current_project_id)],
               "another project's private image is listed as our own")
        return image

    def image_bytes(self, image):
        """Downloads what was uploaded."""
        content = self.demo.image.download_image(image, stream=False).content
        expect(content == self.setting.image.read_bytes(), f"{len(content)} bytes came back, and not those that were sent")

    def flavor(self):
        flavor = self.admin.compute.create_flavor(name="sdk-flavor", ram=self.setting.ram_mb, vcpus=1, disk=1)
        self.admin.compute.create_flavor_extra_specs(flavor, {"purpose": "test"})
        expect_equal(self.demo.compute.find_flavor("sdk-flavor").id, flavor.id, "id of the flavor found by name")
        return flavor

    def keypair(self):
        from with_cli import PUBLIC_KEY
        pair = self.demo.compute.create_keypair(name="sdk-key", public_key=PUBLIC_KEY)
        expect(pair.fingerprint, "no fingerprint")
        return pair

    def boot(self, image, flavor):
        server = self.demo.compute.create_server(name="sdk-server", image_id=image.id, flavor_id=flavor.id, networks="none",
                                                 key_name="sdk-key", metadata={"purpose": "test"})
        server = self.demo.compute.wait_for_server(server, wait=self.setting.boot_seconds)
        expect_equal((server.status, server.metadata, server.key_name), ("ACTIVE", {"purpose": "test"}, "sdk-key"), "server")
        expect_equal(server.flavor.name, "sdk-flavor", "flavor's name in the server")
        return server

    def look(self, server):
        expect_equal([s.id for s in self.demo.compute.servers(details=True, name="sdk-server")], [server.id], "servers listed")
        expect_equal([s.id for s in self.demo.compute.servers(details=False)], [server.id], "servers listed without details")
        expect_equal(self.admin.compute.find_server(server.id, all_projects=True).id, server.id, "found by an administrator")
        expect("output" in self.demo.compute.get_server_console_output(server), "no console output")

    def power(self, server):
        # A guest that has not booted yet does not hear the power button: end it by a hard reboot instead of waiting.
        self.demo.compute.reboot_server(server, "HARD")
        self._wait(server, "ACTIVE")
        if not self.setting.boots:
            self.demo.compute.stop_server(server)
            self._wait(server, "SHUTOFF")
            self.demo.compute.start_server(server)
            self._wait(server, "ACTIVE")

    def _wait(self, server, status):
        def settled():
            now = self.demo.compute.get_server(server.id)
            return now.status == status and now.task_state is None
        wait_until(settled, 60, f"status {status} without a task")

    def actions(self, server):
        names = {action.action for action in self.demo.compute.server_actions(server)}
        expect({"create", "reboot"} <= names, f"actions: {names}")

    def hosts(self):
        expect(all(s.state == "up" for s in self.admin.compute.services()), "not all services are up")
        hypervisors = list(self.admin.compute.hypervisors(details=True))
        expect(hypervisors and all(h.state == "up" for h in hypervisors), f"hypervisors: {hypervisors}")
        expect("nova" in [z.name for z in self.demo.compute.availability_zones()], "no zone nova")
        expect(self.demo.compute.get_limits().absolute.instances is not None, "no limit of instances")

    def pages(self, image, flavor):
        """Lists over several pages come whole and in order, nothing twice."""
        made = [self.demo.compute.create_server(name=f"page-{n}", image_id=image.id, flavor_id=flavor.id, networks="none").id
                for n in range(self.setting.page_servers)]
        for server in made:
            self.demo.compute.wait_for_server(self.demo.compute.get_server(server), wait=self.setting.boot_seconds)
        listed = [s.id for s in self.demo.compute.servers(limit=2) if s.name.startswith("page-")]
        for server in made:
            self.demo.compute.delete_server(server)
        for server in made:
            wait_until(lambda: self.demo.compute.find_server(server) is None, 60, "the server is gone")
        expect_equal(sorted(listed), sorted(made), "servers listed two a page")

    def delete(self, server):
        self.demo.compute.delete_server(server)
        self.demo.compute.wait_for_delete(server, wait=60)
        expect(self.demo.compute.find_server(server.id) is None, "the server is still found")

    def missing(self):
        try:
            self.demo.compute.get_server("7f0a6cde-0000-4000-8000-000000000000")
        except openstack.exceptions.NotFoundException as error:
            expect_equal(error.response.status_code, 404, "status")
        else:
            expect(False, "an unknown server was found")

    def clean(self, image, flavor):
        self.demo.compute.delete_keypair("sdk-key")
        self.demo.image.delete_image(image)
        self.admin.compute.delete_flavor(flavor)
        expect(self.demo.image.find_image("sdk-image") is None, "the image is still found")

    def sweep(self):
        """Whatever servers an earlier failure left behind, whoever owns them."""
        for server in self.admin.compute.servers(details=False, all_projects=True):
            self.admin.compute.delete_server(server, ignore_missing=True)
            self.admin.compute.wait_for_delete(server, wait=60)


def run(setting, ledger):
    ledger.part("openstacksdk")
    steps = ledger.step("connect", WithSdk, setting)
    if steps is None:
        return
    step = ledger.step
    step("token, microversions", steps.connect)
    image = step("create_image with a file, list", steps.image)
    step("download_image", steps.image_bytes, image)
    flavor = step("create_flavor, extra specs, find_flavor", steps.flavor)
    step("create_keypair", steps.keypair)
    server = step("create_server, wait_for_server", steps.boot, image, flavor)
    step("servers, find_server, get_server_console_output", steps.look, server)
    step("reboot, stop and start" if not setting.boots else "reboot", steps.power, server)
    step("server_actions", steps.actions, server)
    step("services, hypervisors, availability_zones, get_limits", steps.hosts)
    step("an unknown server is not found", steps.missing)
    step("delete_server, wait_for_delete", steps.delete, server)
    if setting.page_servers:
        step("servers over several pages", steps.pages, image, flavor)
    step("delete key pair, image and flavor", steps.clean, image, flavor)
