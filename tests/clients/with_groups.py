"""Zones and server groups with the `openstack` command: aggregates, `--availability-zone`, `--hint group=`."""

from cli import Command, Shell
from ledger import expect, expect_equal, wait_until

JSON = ("-f", "json")
AGGREGATE = "clients-aggregate"
ZONE = "clients-zone"
# Rules of a group came with this version.
RULES = ("--os-compute-api-version", "2.64")
# A host that is asked for and checked came with this one.
REQUESTS = ("--os-compute-api-version", "2.74")


class WithGroups:
    """The steps; each returns what later ones need. What must succeed at once is said to one process of each user; what
    waits, or must fail, is a process of its own."""

    def __init__(self, setting):
        self.setting = setting
        self.admin_alone, self.admin = Command(setting.cloud, "nova"), Shell(setting.cloud, "nova")
        self.demo_alone, self.demo = Command(setting.cloud, "nova-demo"), Shell(setting.cloud, "nova-demo")

    def close(self):
        self.admin.close()
        self.demo.close()

    def prepare(self):
        image = self.admin("image", "create", "--public", "--disk-format", self.setting.disk_format, "--container-format", "bare",
                           "--file", str(self.setting.image), "groups-image", *JSON)
        wait_until(lambda: self.admin("image", "show", image["id"], *JSON)["status"] == "active", 60, "the image gets active")
        self.admin("flavor", "create", "--ram", str(self.setting.ram_mb), "--vcpus", "1", "--disk", "1", "groups-flavor", *JSON)
        services = self.admin("compute", "service", "list", "--service", "nova-compute", *JSON)
        hosts = sorted(row["Host"] for row in services)
        expect_equal(len(hosts), self.setting.hosts, "number of hosts")
        return hosts

    def _create(self, who, name, *words, fails=False, version=()):
        return who(*version, "server", "create", "--image", "groups-image", "--flavor", "groups-flavor", "--no-network", *words,
                   "--wait", name, *(() if fails else JSON), fails=fails)

    def _host(self, server_id):
        return self.admin("server", "show", server_id, *JSON)["OS-EXT-SRV-ATTR:host"]

    # ---- aggregates and zones

    def aggregate_create(self):
        made = self.admin("aggregate", "create", "--zone", ZONE, "--property", "ssd=true", AGGREGATE, *JSON)
        expect_equal((made["name"], made["availability_zone"]), (AGGREGATE, ZONE), "name, availability_zone")
        text = self.admin_alone("aggregate", "create", AGGREGATE, fails=True)
        expect("409" in text and "already exists" in text, f"a second one of that name is answered with: {text}")
        text = self.demo_alone("aggregate", "list", fails=True)
        expect("403" in text, f"a member's aggregate list is answered with: {text}")

    def aggregate_host(self, host):
        self.admin("aggregate", "add", "host", AGGREGATE, host, *JSON)
        shown = self.admin("aggregate", "show", AGGREGATE, *JSON)
        expect_equal((shown["hosts"], shown["properties"]), ([host], {"ssd": "true"}), "hosts, properties")
        zones = self.demo("availability", "zone", "list", "--compute", *JSON)
        expect(any(row["Zone Name"] == ZONE and row["Zone Status"] == "available" for row in zones), f"zones: {zones}")
        services = self.admin("compute", "service", "list", "--host", host, "--service", "nova-compute", *JSON)
        expect_equal(services[0]["Zone"], ZONE, "zone of the host's service")
        text = self.admin_alone("aggregate", "add", "host", AGGREGATE, "nowhere", fails=True)
        expect("404" in text, f"an unknown host is answered with: {text}")

    def aggregate_set(self):
        self.admin("aggregate", "set", "--property", "ssd=false", "--property", "cpu=fast", AGGREGATE)
        self.admin("aggregate", "unset", "--property", "cpu", AGGREGATE)
        expect_equal(self.admin("aggregate", "show", AGGREGATE, *JSON)["properties"], {"ssd": "false"}, "properties")

    def boot_into_zone(self, host):
        server = self._create(self.demo_alone, "groups-zone", "--availability-zone", ZONE)
        expect_equal(server["status"], "ACTIVE", "status")
        shown = self.admin("server", "show", server["id"], *JSON)
        expect_equal((shown["OS-EXT-SRV-ATTR:host"], shown["OS-EXT-AZ:availability_zone"]), (host, ZONE), "host, zone")
        text = self.admin_alone("aggregate", "remove", "host", AGGREGATE, host, fails=True)
        expect("409" in text, f"taking a host with servers out of its zone is answered with: {text}")
        text = self._create(self.demo_alone, "groups-moon", "--availability-zone", "moon", fails=True)
        expect("400" in text and "not available" in text, f"an unknown zone is answered with: {text}")
        self.demo_alone("server", "delete", "--wait", "groups-zone")

    def boot_onto_host(self, host):
        target = f"{ZONE}:{host}"
        text = self._create(self.demo_alone, "groups-forced", "--availability-zone", target, fails=True)
        expect("403" in text, f"a member who names a host is answered with: {text}")
        server = self._create(self.admin_alone, "groups-forced", "--availability-zone", target)
        expect_equal(self._host(server["id"]), host, "host")
        self.admin_alone("server", "delete", "--wait", "groups-forced")

    def boot_on_requested_host(self, host):
        """`--host` (2.74): unlike zone:host it is checked like any other."""
        server = self._create(self.admin_alone, "groups-host", "--host", host, version=REQUESTS)
        expect_equal(self._host(server["id"]), host, "host")
        self.admin_alone("server", "delete", "--wait", "groups-host")
        text = self._create(self.admin_alone, "groups-nowhere", "--host", "nowhere", fails=True, version=REQUESTS)
        expect("nowhere" in text and "could not be found" in text, f"an unknown host is answered with: {text}")
        text = self._create(self.demo_alone, "groups-host", "--host", host, fails=True, version=REQUESTS)
        expect("403" in text, f"a member who asks for a host is answered with: {text}")

    def aggregate_delete(self, host):
        text = self.admin_alone("aggregate", "delete", AGGREGATE, fails=True)
        expect("400" in text and "not empty" in text, f"deleting one with hosts is answered with: {text}")
        self.admin("aggregate", "remove", "host", AGGREGATE, host, *JSON)
        self.admin("aggregate", "delete", AGGREGATE)
        expect_equal(self.admin("aggregate", "list", *JSON), [], "aggregates left")

    # ---- server groups

    def group_create(self):
        made = self.demo_alone(*RULES, "server", "group", "create", "--policy", "anti-affinity",
                               "--rule", "max_server_per_host=1", "clients-group", *JSON)
        expect_equal((made["name"], made["policy"]), ("clients-group", "anti-affinity"), "name, policy")
        rows = self.demo("server", "group", "list", *JSON)
        expect_equal([row["Name"] for row in rows], ["clients-group"], "groups listed")
        return made["id"]

    def boot_apart(self, group, hosts):
        """One server on each host; the next one finds none, and its owner reads why."""
        for number in range(len(hosts)):
            self._create(self.demo_alone, f"groups-{number}", "--hint", f"group={group}")
        ids = [row["ID"] for row in self.demo("server", "list", "--name", "^groups-", *JSON)]
        expect_equal(sorted(self._host(server) for server in ids), hosts, "hosts of the members")
        self._create(self.demo_alone, "groups-last", "--hint", f"group={group}", fails=True)
        last = self.demo("server", "show", "groups-last", *JSON)
        expect_equal(last["status"], "ERROR", "status of the one too many")
        expect("No valid host was found" in str(last["fault"]), f"fault: {last['fault']}")
        expect(not any(host in str(last["fault"]) for host in hosts), f"a member is told a host: {last['fault']}")
        fault = self.admin("server", "show", last["id"], *JSON)["fault"]
        expect("anti-affinity" in str(fault), f"an administrator is not told why: {fault}")
        members = self.demo("server", "group", "show", group, *JSON)["members"]
        expect(all(server in str(members) for server in [*ids, last["id"]]), f"members: {members}")

    def group_delete(self, group):
        servers = [row["ID"] for row in self.demo("server", "list", "--name", "^groups-", *JSON)]
        self.demo_alone("server", "delete", "--wait", *servers)
        expect(not self.demo("server", "group", "show", group, *JSON)["members"], "deleted servers are members")
        text = self._create(self.demo_alone, "groups-none", "--hint", "group=00000000-0000-4000-8000-000000000000", fails=True)
        expect("could not be found" in text, f"an unknown group is answered with: {text}")
        self.demo("server", "group", "delete", group)
        expect_equal(self.demo("server", "group", "list", *JSON), [], "groups left")

    def clean(self):
        self.admin("image", "delete", "groups-image")
        self.admin("flavor", "delete", "groups-flavor")


def run(setting, ledger):
    """All of it, on fake guests alone: what is tried is where they go."""
    if setting.boots:
        return
    ledger.part("zones and server groups (python-openstackclient)")
    steps, step = WithGroups(setting), ledger.step
    try:
        hosts = step("image and flavor create, compute service list", steps.prepare)
        host = hosts and hosts[-1]
        step("aggregate create --zone --property", steps.aggregate_create)
        step("aggregate add host; the zone is listed", steps.aggregate_host, host)
        step("aggregate set and unset --property", steps.aggregate_set)
        step("server create --availability-zone; the host stays in its zone", steps.boot_into_zone, host)
        step("server create --availability-zone zone:host", steps.boot_onto_host, host)
        step("server create --host", steps.boot_on_requested_host, host)
        step("aggregate remove host, aggregate delete", steps.aggregate_delete, host)
        group = step("server group create --policy --rule, list", steps.group_create)
        step("server create --hint group= until hosts run out", steps.boot_apart, group, hosts)
        step("server group show, delete", steps.group_delete, group)
        step("image and flavor delete", steps.clean)
    finally:
        steps.close()
