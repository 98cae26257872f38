"""python-novaclient: the older library, still under many tools. Once at the lowest microversion, once at its highest."""

import openstack
from novaclient import api_versions, client, exceptions

import novaclient
from ledger import expect, expect_equal, wait_until


class WithNovaclient:
    """The steps at one microversion."""

    def __init__(self, setting, version):
        self.setting = setting
        self.version = api_versions.APIVersion(version)
        self.demo = client.Client(version, session=openstack.connect(cloud="nova-demo").session)
        self.admin = client.Client(version, session=openstack.connect(cloud="nova").session)

    def prepare(self):
        """The image comes from the SDK: this library has no images any more."""
        connection = openstack.connect(cloud="nova-demo")
        image = connection.create_image("nc-image", filename=str(self.setting.image), disk_format=self.setting.disk_format,
                                        container_format="bare", wait=True, timeout=60)
        flavor = self.admin.flavors.create("nc-flavor", ram=self.setting.ram_mb, vcpus=1, disk=1)
        flavor.set_keys({"purpose": "test"})
        expect_equal(flavor.get_keys(), {"purpose": "test"}, "extra specs")
        expect("nc-flavor" in [f.name for f in self.demo.flavors.list()], "the flavor is not listed")
        return connection, image, flavor

    def keypair(self):
        from with_cli import PUBLIC_KEY
        pair = self.demo.keypairs.create("nc-key", public_key=PUBLIC_KEY)
        expect_equal(pair.name, "nc-key", "name")
        expect_equal(self.demo.keypairs.get("nc-key").public_key.split()[:2], PUBLIC_KEY.split()[:2], "public key")

    def boot(self, image, flavor):
        # Before 2.37 a request without networks means none, as there is none.
        extra = {"nics": "none"} if self.version >= api_versions.APIVersion("2.37") else {}
        server = self.demo.servers.create("nc-server", image=image.id, flavor=flavor.id, key_name="nc-key", meta={"a": "b"}, **extra)
        self._wait(server, "ACTIVE")
        server = self.demo.servers.get(server.id)
        expect_equal((server.name, server.metadata, server.key_name), ("nc-server", {"a": "b"}, "nc-key"), "server")
        # The flavor inside a server changed its shape at 2.47.
        expect_equal("original_name" in server.flavor, self.version >= api_versions.APIVersion("2.47"), "flavor embedded by name")
        return server

    def _wait(self, server, status):
        def settled():
            now = self.demo.servers.get(server.id)
            expect(now.status != "ERROR" or status == "ERROR", f"the server is in ERROR: {getattr(now, 'fault', None)}")
            return now.status == status and getattr(now, "OS-EXT-STS:task_state") is None
        wait_until(settled, self.setting.boot_seconds, f"status {status}")

    def look(self, server):
        expect_equal([s.id for s in self.demo.servers.list()], [server.id], "servers")
        expect(server.id in [s.id for s in self.admin.servers.list(search_opts={"all_tenants": 1})], "not in all projects' list")
        expect(isinstance(self.demo.servers.get_console_output(server), str), "no console output")
        expect(isinstance(server.get_console_output(length=1), str), "no console output of one line")

    def power(self, server):
        server.reboot("HARD")
        self._wait(server, "ACTIVE")
        if not self.setting.boots:
            server.stop()
            self._wait(server, "SHUTOFF")
            server.start()
            self._wait(server, "ACTIVE")

    def hosts(self):
        expect(all(s.state == "up" for s in self.admin.services.list()), "not all services are up")
        expect(all(h.state == "up" for h in self.admin.hypervisors.list()), "not all hypervisors are up")
        expect("nova" in [z.zoneName for z in self.demo.availability_zones.list(detailed=False)], "no zone nova")
        expect("maxTotalInstances" in self.demo.limits.get().to_dict()["absolute"], "no limit of instances")
        actions = self.demo.versions.get_current()
        expect(actions is not None, "no current version")

    def delete(self, server):
        server.delete()

        def gone():
            try:
                self.demo.servers.get(server.id)
            except exceptions.NotFound:
                return True
            return False
        wait_until(gone, 60, "the server is gone")

    def clean(self, connection, image, flavor):
        self.demo.keypairs.delete("nc-key")
        flavor.delete()
        connection.image.delete_image(image)
        expect_equal(self.demo.keypairs.list(), [], "key pairs left")


def run(setting, ledger):
    for version in setting.novaclient_versions or (novaclient.API_MAX_VERSION.get_string(),):
        ledger.part(f"python-novaclient at {version}")
        step = ledger.step
        steps = step("connect", WithNovaclient, setting, version)
        made = steps and step("flavor create, keys, list", steps.prepare)
        if not made:
            continue
        connection, image, flavor = made
        step("keypairs.create, get", steps.keypair)
        server = step("servers.create, get", steps.boot, image, flavor)
        step("servers.list, get_console_output", steps.look, server)
        step("reboot, stop and start" if not setting.boots else "reboot", steps.power, server)
        step("services, hypervisors, availability zones, limits", steps.hosts)
        step("delete", steps.delete, server)
        step("delete key pair, flavor and image", steps.clean, connection, image, flavor)
