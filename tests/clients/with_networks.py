"""Networks with the `openstack` command, openstacksdk and python-novaclient: the network API, and servers on networks."""

import openstack
from novaclient import client

from cli import Command, Shell
from ledger import expect, expect_equal, wait_until

JSON = ("-f", "json")
# Addresses are given by actions of compute until this version.
LAST_ACTIONS = "2.43"
# Security groups and floating addresses are passed on until this one.
LAST_PROXIES = "2.35"


class WithNetworks:
    """The steps; each returns what later ones need."""

    def __init__(self, setting):
        self.setting = setting
        self.admin = Shell(setting.cloud, "nova")
        self.demo_alone, self.demo = Command(setting.cloud, "nova-demo"), Shell(setting.cloud, "nova-demo")
        self.sdk = openstack.connect(cloud="nova-demo")

    def close(self):
        self.admin.close()
        self.demo.close()

    def prepare(self):
        image = self.admin("image", "create", "--public", "--disk-format", self.setting.disk_format, "--container-format", "bare",
                           "--file", str(self.setting.image), "nets-image", *JSON)
        wait_until(lambda: self.admin("image", "show", image["id"], *JSON)["status"] == "active", 60, "the image gets active")
        self.admin("flavor", "create", "--ram", str(self.setting.ram_mb), "--vcpus", "1", "--disk", "1", "nets-flavor", *JSON)
        # Servers that were made without a word on networks have made one.
        self.sdk.network.delete_auto_allocated_topology(self.sdk.current_project_id)
        expect_equal([row["Name"] for row in self.demo("network", "list", *JSON)], ["public"], "networks")

    def _server(self, name, *words):
        return self.demo_alone("server", "create", "--image", "nets-image", "--flavor", "nets-flavor", *words, "--wait", name, *JSON)

    def _addresses(self, name):
        return self.demo("server", "show", name, *JSON)["addresses"]

    # ---- the network API

    def outer(self):
        rows = self.demo("network", "list", "--external", *JSON)
        expect_equal([row["Name"] for row in rows], ["public"], "outer networks")

    def network(self):
        network = self.demo("network", "create", "nets-one", *JSON)
        subnet = self.demo("subnet", "create", "--network", "nets-one", "--subnet-range", "10.5.0.0/24", "--dns-nameserver", "9.9.9.9",
                           "nets-subnet", *JSON)
        expect_equal((subnet["gateway_ip"], subnet["allocation_pools"]),
                     ("10.5.0.1", [{"start": "10.5.0.2", "end": "10.5.0.254"}]), "gateway, pools")
        expect_equal(self.demo("network", "show", "nets-one", *JSON)["subnets"], [subnet["id"]], "subnets of the network")
        self.demo("network", "set", "--description", "first", "nets-one")
        expect_equal(self.demo("network", "show", network["id"], *JSON)["description"], "first", "description")
        text = self.demo_alone("subnet", "create", "--network", "nets-one", "--subnet-range", "10.5.0.128/25", "x", fails=True)
        expect("overlaps with another subnet" in text, f"an overlapping range is answered with: {text}")
        return network["id"]

    def router(self):
        self.demo("router", "create", "nets-router", *JSON)
        self.demo("router", "set", "--external-gateway", "public", "nets-router")
        self.demo("router", "add", "subnet", "nets-router", "nets-subnet")
        shown = self.demo("router", "show", "nets-router", *JSON)
        expect(shown["external_gateway_info"]["external_fixed_ips"], f"no address outside: {shown}")
        expect_equal(len(shown["interfaces_info"]), 1, "number of interfaces")

    def port(self):
        port = self.demo("port", "create", "--network", "nets-one", "--fixed-ip", "ip-address=10.5.0.50", "nets-port", *JSON)
        expect_equal(port["fixed_ips"][0]["ip_address"], "10.5.0.50", "address")
        self.demo("port", "set", "--name", "nets-renamed", "nets-port")
        self.demo("port", "set", "--name", "nets-port", "nets-renamed")
        text = self.demo_alone("port", "create", "--network", "nets-one", "--fixed-ip", "ip-address=192.0.2.1", "x", fails=True)
        expect("is not a valid IP" in text, f"an address outside is answered with: {text}")
        return port["id"]

    def groups(self):
        self.demo("security", "group", "create", "nets-web", *JSON)
        rule = self.demo("security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "80:81", "nets-web", *JSON)
        expect_equal((rule["port_range_min"], rule["port_range_max"]), (80, 81), "ports")
        rows = self.demo("security", "group", "rule", "list", "nets-web", *JSON)
        expect_equal(len(rows), 3, f"number of rules ({rows})")
        self.demo("security", "group", "rule", "delete", rule["id"])

    def others(self):
        expect(self.demo("extension", "list", "--network", *JSON), "no extensions")
        expect(self.demo("availability", "zone", "list", "--network", *JSON), "no zones")
        # It raises if that is not possible.
        self.sdk.network.validate_auto_allocated_topology(self.sdk.current_project_id)
        quota = {row["Resource"]: row["Limit"] for row in self.demo("quota", "show", "--network", *JSON)}
        expect_equal(quota["networks"], 100, f"quota of networks ({quota})")
        self.admin("network", "agent", "list", *JSON)

    # ---- servers

    def on_network(self):
        server = self._server("nets-a", "--network", "nets-one", "--security-group", "nets-web")
        expect_equal(list(server["addresses"]), ["nets-one"], "networks")
        expect_equal([group["name"] for group in server["security_groups"]], ["nets-web"], "groups")
        rows = self.demo("server", "list", "--name", "nets-a", *JSON)
        expect_equal(rows[0]["Networks"], server["addresses"], "addresses in the list")
        rows = self.demo("server", "list", "--ip", server["addresses"]["nets-one"][0], *JSON)
        expect_equal([row["Name"] for row in rows], ["nets-a"], "servers of that address")
        return server["id"]

    def on_port_and_address(self, network, port):
        # Others on the network have addresses that were drawn: any of the range may be taken.
        taken = {fixed["ip_address"] for one in self.sdk.network.ports(network_id=network) for fixed in one.fixed_ips}
        wanted = next(address for address in (f"10.5.0.{last}" for last in range(60, 255)) if address not in taken)
        server = self._server("nets-b", "--port", port, "--nic", f"net-id={network},v4-fixed-ip={wanted}")
        expect_equal(sorted(server["addresses"]["nets-one"]), sorted(["10.5.0.50", wanted]), "addresses")
        self.demo_alone("server", "delete", "--wait", "nets-b")
        expect_equal(self.demo("port", "show", port, *JSON)["device_id"], "", "who uses the port that was there before")
        rows = self.demo("port", "list", "--fixed-ip", f"ip-address={wanted}", *JSON)
        expect_equal(rows, [], "ports of the address that came with the server")

    def wrong(self, port):
        text = self._fails("--network", "nowhere")
        expect("No Network found for nowhere" in text or "not found" in text.lower(), f"an unknown network is answered with: {text}")
        text = self._fails("--nic", "net-id=00000000-0000-4000-8000-000000000000")
        expect("could not be found" in text or "No Network found" in text, f"an unknown network's id is answered with: {text}")
        self.demo("port", "set", "--device", "other", port)
        text = self._fails("--port", port)
        expect("409" in text and "still in use" in text, f"a port in use is answered with: {text}")
        self.sdk.network.update_port(port, device_id="")

    def _fails(self, *words):
        return self.demo_alone("server", "create", "--image", "nets-image", "--flavor", "nets-flavor", *words, "nets-x", fails=True)

    def interfaces(self, port):
        self.demo("network", "create", "nets-two", *JSON)
        self.demo("subnet", "create", "--network", "nets-two", "--subnet-range", "10.6.0.0/24", "nets-subnet-two", *JSON)
        self.demo("server", "add", "network", "nets-a", "nets-two")
        self.demo_alone("server", "add", "port", "nets-a", port)
        addresses = self._addresses("nets-a")
        expect_equal((len(addresses["nets-one"]), len(addresses["nets-two"])), (2, 1), f"number of addresses ({addresses})")
        attached = list(self.sdk.compute.server_interfaces(self.sdk.compute.find_server("nets-a")))
        expect_equal(len(attached), 3, "number of interfaces")
        self.demo("server", "remove", "network", "nets-a", "nets-two")
        self.demo("server", "remove", "port", "nets-a", port)
        wait_until(lambda: "nets-two" not in self._addresses("nets-a"), 30, "the interface is gone")
        wait_until(lambda: len(self._addresses("nets-a")["nets-one"]) == 1, 30, "the port is gone")

    def fixed(self):
        before = len(self._addresses("nets-a")["nets-one"])
        self.demo("server", "add", "fixed", "ip", "nets-a", "nets-one")
        expect_equal(len(self._addresses("nets-a")["nets-one"]), before + 1, "number of addresses")
        old = client.Client(LAST_ACTIONS, session=self.sdk.session)
        server = old.servers.find(name="nets-a")
        expect_equal(len(server.interface_list()), before + 1, "number of interfaces")
        self._act(server.id, {"addFixedIp": {"networkId": self.demo("network", "show", "nets-one", *JSON)["id"]}})
        addresses = self._addresses("nets-a")["nets-one"]
        expect_equal(len(addresses), before + 2, f"number of addresses ({addresses})")
        self._act(server.id, {"removeFixedIp": {"address": addresses[-1]}})
        expect_equal(len(self._addresses("nets-a")["nets-one"]), before + 1, "number of addresses")

    def _act(self, server, body):
        answer = self.sdk.compute.post(f"/servers/{server}/action", json=body, microversion=LAST_ACTIONS)
        expect_equal(answer.status_code, 202, f"status of {body}")

    def floating(self):
        floating = self.demo("floating", "ip", "create", "public", *JSON)["floating_ip_address"]
        fixed = self._addresses("nets-a")["nets-one"][0]
        self.demo("server", "add", "floating", "ip", "--fixed-ip-address", fixed, "nets-a", floating)
        expect(floating in self._addresses("nets-a")["nets-one"], "the floating address is not shown")
        expect_equal(self.demo("floating", "ip", "show", floating, *JSON)["fixed_ip_address"], fixed, "fixed address")
        self.demo("server", "remove", "floating", "ip", "nets-a", floating)
        expect(floating not in self._addresses("nets-a")["nets-one"], "the floating address is still shown")
        self.demo("floating", "ip", "delete", floating)

    def server_groups(self):
        self.demo("server", "add", "security", "group", "nets-a", "default")
        names = {group["name"] for group in self.demo("server", "show", "nets-a", *JSON)["security_groups"]}
        expect_equal(names, {"default", "nets-web"}, "groups")
        self.demo("server", "remove", "security", "group", "nets-a", "default")

    def proxies(self):
        """What old programs ask of compute."""
        session = self.sdk.compute
        headers = {"X-OpenStack-Nova-API-Version": LAST_PROXIES}

        def get(path, key):
            answer = session.get(path, headers=headers, microversion=LAST_PROXIES)
            expect_equal(answer.status_code, 200, f"status of {path}")
            return answer.json()[key]
        expect("nets-web" in [group["name"] for group in get("/os-security-groups", "security_groups")], "no group")
        expect_equal(get("/os-floating-ip-pools", "floating_ip_pools"), [{"name": "public"}], "pools")
        expect("nets-one" in [network["label"] for network in get("/os-tenant-networks", "networks")], "no network")
        expect_equal(get("/os-floating-ips", "floating_ips"), [], "floating addresses")

    def automatic(self):
        """A project without networks gets one."""
        self.admin("project", "create", "nets-empty", *JSON)
        self.admin("user", "create", "--project", "nets-empty", "--password", "nets-secret", "nets-user", *JSON)
        self.admin("role", "add", "--user", "nets-user", "--project", "nets-empty", "member")
        cloud = openstack.connect(auth_url=self.setting.cloud.auth_url, username="nets-user", password="nets-secret",
                                  project_name="nets-empty", user_domain_name="Default", project_domain_name="Default",
                                  region_name="RegionOne")
        image = cloud.image.find_image("nets-image").id
        flavor = cloud.compute.find_flavor("nets-flavor").id
        server = cloud.compute.create_server(name="nets-auto", image_id=image, flavor_id=flavor, networks="auto")
        server = cloud.compute.wait_for_server(server, wait=self.setting.boot_seconds)
        expect_equal(list(server.addresses), ["auto_allocated_network"], "networks")
        none = cloud.compute.create_server(name="nets-none", image_id=image, flavor_id=flavor, networks="none")
        none = cloud.compute.wait_for_server(none, wait=self.setting.boot_seconds)
        expect_equal(none.addresses, {}, "addresses")
        for one in (server, none):
            cloud.compute.delete_server(one)
            cloud.compute.wait_for_delete(one, wait=60)
        cloud.network.delete_auto_allocated_topology(cloud.current_project_id)
        expect_equal([n.name for n in cloud.network.networks()], ["public"], "networks left")
        self.admin("user", "delete", "nets-user")
        self.admin("project", "delete", "nets-empty")

    def clean(self, port):
        self.demo_alone("server", "delete", "--wait", "nets-a")
        self.demo("port", "delete", port)
        self.demo("router", "remove", "subnet", "nets-router", "nets-subnet")
        self.demo("router", "delete", "nets-router")
        self.demo("network", "delete", "nets-one", "nets-two")
        self.demo("security", "group", "delete", "nets-web")
        expect_equal([row["Name"] for row in self.demo("network", "list", *JSON)], ["public"], "networks left")
        expect_equal(self.demo("port", "list", *JSON), [], "ports left")
        self.admin("image", "delete", "nets-image")
        self.admin("flavor", "delete", "nets-flavor")


def run(setting, ledger):
    if setting.boots:
        # The books are the same whatever runs the guests.
        return
    ledger.part("networks (openstack command, openstacksdk, python-novaclient)")
    steps, step = WithNetworks(setting), ledger.step
    try:
        step("image and flavor create", steps.prepare)
        step("network list --external", steps.outer)
        network = step("network and subnet create, set, show; overlapping range", steps.network)
        step("router create, set, add subnet", steps.router)
        port = step("port create, set; address outside", steps.port)
        step("security group and rule create, list, delete", steps.groups)
        step("extensions, zones, quota, agents, automatic topology", steps.others)
        server = step("server create --network --security-group; server list", steps.on_network)
        step("server create --port --nic net-id=,v4-fixed-ip=", steps.on_port_and_address, network, port)
        step("server create with what is not there or in use", steps.wrong, port)
        if server:
            step("server add and remove network and port", steps.interfaces, port)
            step("server add and remove fixed ip", steps.fixed)
            step("floating ip create; server add and remove floating ip", steps.floating)
            step("server add and remove security group", steps.server_groups)
            step("what compute passes on until 2.35", steps.proxies)
        step("networks auto and none", steps.automatic)
        step("delete all of it", steps.clean, port)
    finally:
        steps.close()
